"""The auditor's other input: plain data on organisations and rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

MILLION = 1_000_000

PUBLISHED_MILLIONTHS = {
    "photo_processing": MILLION,
    "ai_image_rotation": MILLION,
    "watermark_reprocess": 100_000,
    "store_originals": 0,
}


@dataclass(frozen=True)
class Addition:
    """An addition of credits. `kind` is purchase, free_credits or admin_grant."""

    kind: str
    credits: int


@dataclass(frozen=True)
class Account:
    """An open organisation. If it opened during the traffic, earlier usage is charged late."""

    organisation_id: str
    time_zone: str
    additions: tuple[Addition, ...]
    opened_in_the_middle: bool = False


@dataclass(frozen=True)
class RateChange:
    """The price of a photo from a moment on, in millionths of a credit."""

    usage_type: str
    millionths: int
    effective_from: datetime


class Rates:
    """The published rates and later changes of them."""

    def __init__(self, changes: Sequence[RateChange] = ()) -> None:
        self._changes = sorted(changes, key=lambda change: change.effective_from)

    def millionths(self, usage_type: str, *, ai_search: bool, at: datetime) -> int:
        """Return the price of a photo at a moment."""
        if usage_type == "photo_processing" and not ai_search:
            return 0
        in_force = PUBLISHED_MILLIONTHS[usage_type]
        for change in self._changes:
            if change.usage_type == usage_type and change.effective_from <= at:
                in_force = change.millionths
        return in_force
