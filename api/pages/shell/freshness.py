"""How fresh the numbers of a page are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from projections.credits.read_models import Positions

LATE_AFTER_S: Final = 5
"""Fewer seconds behind are how usage under way always looks: nobody waits for them."""


@dataclass(frozen=True)
class Freshness:
    """The numbers contain everything that was recorded by `as_of`, up to `position` of the log."""

    as_of: datetime
    position: int
    events_behind: int
    seconds_behind: int

    @property
    def is_late(self) -> bool:
        """Whether what a person did a moment ago may be missing still."""
        return self.events_behind > 0 and self.seconds_behind >= LATE_AFTER_S

    @classmethod
    def of(cls, positions: Positions, now: datetime) -> Freshness:
        """Return how fresh what was read at `now` is.

        Views that lack something were complete when they last moved, at the latest.
        """
        behind = max(0, positions.log_end - positions.position)
        last_moved = min((each.updated_at for each in positions.projections), default=now)
        as_of = min(now, last_moved) if behind else now
        return cls(as_of, positions.position, behind, int((now - as_of).total_seconds()))
