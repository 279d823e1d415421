"""Money as integers: prices in millionths of a currency unit, amounts in minor units (cents, paise)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

MILLIONTHS: Final = 1_000_000
_MILLIONTHS_PER_MINOR_UNIT: Final = 10_000  # both currencies have two decimals
_PER_CENT: Final = 100


class Currency(StrEnum):
    """ISO 4217 codes the ledger sells credits in."""

    USD = "USD"
    INR = "INR"


DEFAULT_PRICE_MILLIONTHS: Final = {Currency.USD: 20_000, Currency.INR: 1_500_000}
"""Price of one credit where the organisation has none of its own: $0.02, ₹1.50."""

TAX_PER_CENT: Final = {Currency.USD: 0, Currency.INR: 18}
"""Indian GST is added to INR purchases; other purchases carry no tax."""


class Cost(msgspec.Struct, frozen=True):
    """What a number of credits costs, in minor units; `total_minor` is what the payer pays."""

    amount_minor: int
    tax_minor: int

    @property
    def total_minor(self) -> int:
        return self.amount_minor + self.tax_minor


def cost_of(credits_count: int, price_millionths: int, currency: Currency) -> Cost:
    """Return the cost of credits; amount and tax are each rounded half up to a minor unit."""
    amount_minor = _divide_half_up(credits_count * price_millionths, _MILLIONTHS_PER_MINOR_UNIT)
    tax_minor = _divide_half_up(amount_minor * TAX_PER_CENT[currency], _PER_CENT)
    return Cost(amount_minor, tax_minor)


def _divide_half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
