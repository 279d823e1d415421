"""The rate card: the credits that a photo costs, by usage type and by the time of usage.

A rate is in millionths of a credit per photo: 1_000_000 charges one credit a photo, 100_000 charges
10 %. A fractional charge is rounded up to a whole credit once per run, never once per message.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from domain.shared.errors import InvalidInput

WHOLE_CREDIT_MILLIONTHS: Final = 1_000_000
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


class UsageType(StrEnum):
    """The kind of processing that the pipeline reports."""

    PHOTO_PROCESSING = "photo_processing"
    AI_IMAGE_ROTATION = "ai_image_rotation"
    WATERMARK_REPROCESS = "watermark_reprocess"
    STORE_ORIGINALS = "store_originals"


class RateChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `effective_from` on, a photo of this usage type costs `rate_millionths` credits."""

    usage_type: UsageType
    rate_millionths: int
    effective_from: datetime = _BEGINNING


PUBLISHED_RATES: Final = (
    RateChange(UsageType.PHOTO_PROCESSING, WHOLE_CREDIT_MILLIONTHS),
    RateChange(UsageType.AI_IMAGE_ROTATION, WHOLE_CREDIT_MILLIONTHS),
    RateChange(UsageType.WATERMARK_REPROCESS, 100_000),
    RateChange(UsageType.STORE_ORIGINALS, 0),
)


class RateCard:
    """Rates by usage type and time. A change never affects earlier usage.

    Raises:
        InvalidInput: a rate is negative, or a date lacks its zone.
    """

    def __init__(self, changes: Iterable[RateChange] = ()) -> None:
        self._history: dict[UsageType, list[RateChange]] = {usage_type: [] for usage_type in UsageType}
        for change in (*PUBLISHED_RATES, *changes):
            if change.rate_millionths < 0:
                raise InvalidInput("rate_millionths", f"the rate of {change.usage_type} is below zero")
            if change.effective_from.tzinfo is None:
                raise InvalidInput(
                    "effective_from", "a rate's date needs its zone, such as 2026-01-01T00:00:00Z"
                )
            self._history[change.usage_type].append(change)
        for history in self._history.values():
            # Newest first. Of two changes with the same date, the later one in the list wins.
            history.reverse()
            history.sort(key=lambda change: change.effective_from, reverse=True)
        self._constant = {
            usage_type: history[0].rate_millionths
            for usage_type, history in self._history.items()
            if history[0].effective_from == _BEGINNING
        }

    def rate_millionths(self, usage_type: UsageType, ai_search: bool, at: datetime) -> int:
        """Return the rate in force at a time. Processing with both searches off costs nothing."""
        if usage_type is UsageType.PHOTO_PROCESSING and not ai_search:
            return 0
        constant = self._constant.get(usage_type)
        if constant is not None:
            return constant
        return next(
            change.rate_millionths for change in self._history[usage_type] if change.effective_from <= at
        )


def credits_for(photos: int, rate_millionths: int) -> int:
    """Return the whole credits that photos cost at a rate, rounded up."""
    return -(-photos * rate_millionths // WHOLE_CREDIT_MILLIONTHS)
