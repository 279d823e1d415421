"""Recommendations from past usage: how much to top up, and whether Pro would cost less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from domain.pricing.price_book import Prices
from domain.shared.money import Currency, cost_of

RESERVE_PER_CENT: Final = 10
"""Reserve on top of the expected photos, for rotation, re-processing or late uploads."""
PRO_RECOMMENDED_PER_CENT: Final = 80
"""Pro is recommended when the spend reaches this share of its fee."""


@dataclass(frozen=True)
class TopUpSuggestion:
    """Credits for the next event. `photos` is the user's number, or the median of the last events."""

    photos: int
    is_typed: bool
    events: int
    needed: int
    missing: int
    suggested: int
    cost_minor: int
    """The price of the suggested credits, excluding tax."""


@dataclass(frozen=True)
class ProComparison:
    """The cost of twelve months of usage at the organisation's price, and the fee of Pro."""

    credits: int
    spend_minor: int
    fee_minor: int

    @property
    def is_recommended(self) -> bool:
        """Whether the spend is close to the fee or above it."""
        return self.spend_minor * 100 >= self.fee_minor * PRO_RECOMMENDED_PER_CENT


def top_up(
    available: int,
    photos: int | None,
    last_events: Sequence[int],
    price_millionths: int,
    minimum_credits: int,
) -> TopUpSuggestion | None:
    """Return the suggestion, or None without a number of photos and without past events.

    `last_events` are the credits of each of the last events.
    """
    if photos is None and not last_events:
        return None
    expected = round(median(last_events)) if photos is None else photos
    needed = -(-expected * (100 + RESERVE_PER_CENT) // 100)
    missing = max(0, needed - available)
    suggested = max(minimum_credits, missing) if missing else 0
    cost_minor = cost_of(suggested, price_millionths, 0).amount_minor
    return TopUpSuggestion(
        expected, photos is not None, len(last_events), needed, missing, suggested, cost_minor
    )


def compare_with_pro(
    credits_used: int, price_millionths: int, currency: Currency, prices: Prices
) -> ProComparison:
    """Return the comparison of the cost of the used credits with the fee of Pro."""
    spend_minor = cost_of(credits_used, price_millionths, 0).amount_minor
    return ProComparison(credits_used, spend_minor, prices.of(currency).pro_fee_minor)
