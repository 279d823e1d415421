"""Bounds of credits and prices."""

from __future__ import annotations

from typing import Final

from domain.shared.errors import InvalidInput
from domain.shared.money import PRICE_MILLIONTHS_MAX

CREDITS_MAX: Final = 1_000_000_000_000

SETTLEMENT_SOURCE: Final = "/credit-ledger/holds"
"""Source of the charge of a settlement; its cause is the hold's id."""


def check_credits(credits_count: int) -> None:
    """Check a number of credits that is added.

    Raises:
        InvalidInput: outside 1 to `CREDITS_MAX`.
    """
    if not 1 <= credits_count <= CREDITS_MAX:
        raise InvalidInput("credits", f"credits must be between 1 and {CREDITS_MAX:,}")


def check_price(price_millionths: int) -> None:
    """Check the price of a credit.

    Raises:
        InvalidInput: below 0 or above `PRICE_MILLIONTHS_MAX`.
    """
    if not 0 <= price_millionths <= PRICE_MILLIONTHS_MAX:
        raise InvalidInput(
            "price_millionths", f"the price must be between 0 and {PRICE_MILLIONTHS_MAX:,} millionths"
        )


def check_threshold(threshold: int) -> None:
    """Check a low-balance threshold.

    Raises:
        InvalidInput: outside 0 to `CREDITS_MAX`.
    """
    if not 0 <= threshold <= CREDITS_MAX:
        raise InvalidInput("threshold", f"the threshold must be between 0 and {CREDITS_MAX:,}")
