"""How fresh the numbers of a page are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from projections.results import Positions


@dataclass(frozen=True)
class Freshness:
    """The numbers contain everything that was recorded by `true_at`, up to `position` of the log."""

    true_at: datetime
    position: int
    events_behind: int
    seconds_behind: int

    @classmethod
    def of(cls, positions: Positions, now: datetime) -> Freshness:
        """Return how fresh what was read at `now` is.

        Views that lack something were complete when they last moved, at the latest.
        """
        behind = max(0, positions.log_end - positions.position)
        last_moved = min((each.updated_at for each in positions.projections), default=now)
        true_at = min(now, last_moved) if behind else now
        return cls(true_at, positions.position, behind, int((now - true_at).total_seconds()))
