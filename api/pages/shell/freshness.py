"""The freshness of the numbers on a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from projections.credits.read_models import Positions

LATE_AFTER_S: Final = 5
"""A smaller lag is normal while usage arrives, so a page does not show it."""


@dataclass(frozen=True)
class Freshness:
    """The numbers include everything that was recorded until `as_of`, up to the log position `position`."""

    as_of: datetime
    position: int
    events_behind: int
    seconds_behind: int

    @property
    def is_late(self) -> bool:
        """Whether recent actions may still be missing."""
        return self.events_behind > 0 and self.seconds_behind >= LATE_AFTER_S

    @classmethod
    def of(cls, positions: Positions, now: datetime) -> Freshness:
        """Return the freshness of data that was read at `now`.

        `as_of` of lagging projections is the time of their last update.
        """
        behind = max(0, positions.log_end - positions.position)
        last_update = min((each.updated_at for each in positions.projections), default=now)
        as_of = min(now, last_update) if behind else now
        return cls(as_of, positions.position, behind, int((now - as_of).total_seconds()))
