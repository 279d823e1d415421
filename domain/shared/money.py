"""Money as integers: prices in millionths of a currency unit, amounts in minor units (cents, paise)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

MILLIONTHS: Final = 1_000_000
PRICE_MILLIONTHS_MAX: Final = 10_000_000_000  # with maximum credits and tax, an amount still fits 64 bits
AMOUNT_MINOR_MAX: Final = 1_000_000_000_000  # of a fee: ten billion currency units
PAID_MINOR_MIN: Final = 100  # tax included: gateways accept no lower amount in either currency
MINOR_UNITS: Final = 100  # per currency unit: both currencies have two decimals
MILLIONTHS_PER_MINOR_UNIT: Final = MILLIONTHS // MINOR_UNITS
_PER_CENT: Final = 100


class Currency(StrEnum):
    """The currencies in which the ledger sells credits (ISO 4217 codes)."""

    USD = "USD"
    INR = "INR"


class Cost(msgspec.Struct, frozen=True):
    """An amount due, in minor units; `total_minor` is what the payer pays."""

    amount_minor: int
    tax_minor: int

    @property
    def total_minor(self) -> int:
        return self.amount_minor + self.tax_minor


def cost_of(credits_count: int, price_millionths: int, tax_per_cent: int, *, fee_minor: int = 0) -> Cost:
    """Return the cost of credits and a fee.

    Amount and tax are each rounded half up to a minor unit. Tax is computed from the rounded amount.
    """
    amount_minor = divide_half_up(credits_count * price_millionths, MILLIONTHS_PER_MINOR_UNIT) + fee_minor
    return Cost(amount_minor, divide_half_up(amount_minor * tax_per_cent, _PER_CENT))


def divide_half_up(numerator: int, denominator: int) -> int:
    """Return a quotient of integers, rounded to the nearest integer, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)
