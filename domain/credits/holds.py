"""Holds: credits set aside for a run before it starts, and photos that a settlement charged ahead.

A hold reserves an amount, not lots: which lots a charge draws on is decided when it is charged. A run has one
hold in its life; photos and credits are counted by run, so that what a settlement charges and what late
messages of the run report are never charged twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from domain.credits.limits import CREDITS_MAX
from domain.credits.usage import PhotoEvent
from domain.pricing.rate_card import UsageType
from domain.shared.errors import InvalidInput

HOLD_PREFIX: Final = "hold-"
"""A hold's id is this prefix and the version of the event that placed the hold."""
HOLD_DURATION_MAX: Final = timedelta(days=1)
ROTATION_IMAGES_RANGE: Final = range(1, 100_001)
"""The numbers of images that one AI image rotation accepts."""
PHOTOS_MAX: Final = 1_000_000_000


class HoldMode(StrEnum):
    """What to do if fewer credits are available than requested."""

    ALL_OR_NOTHING = "all_or_nothing"
    UP_TO = "up_to"


class HoldRequest(msgspec.Struct, frozen=True, array_like=True):
    """What a run asks for: `credits`, at the rate of `usage_type` and `photos` where it names them.

    `event_id`, `event_name` and `user` name what a settlement is for; an event of 0 is none.
    """

    run_id: str
    credits: int
    mode: HoldMode
    usage_type: UsageType | None
    photos: int | None
    ai_search: bool
    event_id: int
    event_name: str
    user: str | None


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """An open hold: 0 <= `remaining` <= `size`. `photos` of each type its run reported so far, before it
    as well, and `event_id` is the photo event that the run's messages named last; 0: none.
    """

    hold_id: str
    request: HoldRequest
    size: int
    remaining: int
    expires_at: datetime
    photos: dict[UsageType, int]
    event_id: int = 0
    event_name: str = ""

    @property
    def photo_event(self) -> PhotoEvent:
        """The photo event that the hold names, or else the one that the run's messages named."""
        if self.request.event_id:
            return PhotoEvent(self.request.event_id, self.request.event_name)
        return PhotoEvent(self.event_id, self.event_name)


SettlementKey = tuple[str, UsageType]
"""Run id and usage type."""


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """Photos of a settled run that were charged ahead of the messages that will report them."""

    run_id: str
    usage_type: UsageType
    photos: int
    settled_at: datetime


def check_hold(wanted: HoldRequest, duration: timedelta) -> None:
    """Check what is requested, and for how long.

    Raises:
        InvalidInput: credits outside 0 to `CREDITS_MAX`, or a duration outside a second to a day.
    """
    if not 0 <= wanted.credits <= CREDITS_MAX:
        raise InvalidInput("credits", f"credits must be between 0 and {CREDITS_MAX:,}")
    if not timedelta(0) < duration <= HOLD_DURATION_MAX:
        raise InvalidInput("expires_in_s", "a hold lasts between a second and a day")


def check_photos(photos: int) -> None:
    """Check the number of photos of a run.

    Raises:
        InvalidInput: out of range.
    """
    if not 0 <= photos <= PHOTOS_MAX:
        raise InvalidInput("photos", f"photos must be between 0 and {PHOTOS_MAX:,}")


def check_requested_photos(usage_type: UsageType, photos: int) -> None:
    """Check the request for a hold or a quote: AI image rotation takes 1 to 100,000 images.

    Raises:
        InvalidInput: out of range.
    """
    check_photos(photos)
    if usage_type is UsageType.AI_IMAGE_ROTATION and photos not in ROTATION_IMAGES_RANGE:
        raise InvalidInput(
            "photos", f"AI image rotation takes 1 to {ROTATION_IMAGES_RANGE.stop - 1:,} images"
        )
