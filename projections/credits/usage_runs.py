"""Folds a batch of charges into one change per run, in memory.

A charge counts if its rate and its photos are above zero. The first such charge of a run costs at least one
credit. Later ones may cost nothing, because rounding has already charged them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import msgspec

from domain.credits.events import UsageCharged, is_billable
from domain.pricing.rate_card import UsageType
from projections.engine.event_log import LogEntry

RunKey = tuple[bytes, str]
"""Stream (the 16 bytes of its UUID) and run id."""


class RunPart(msgspec.Struct, gc=False):
    """A run's usage for one photo event on one day. `event_name` is from the version `last_version`."""

    event_name: str
    first_occurred_at: datetime
    last_occurred_at: datetime
    credits: int = 0
    photos: int = 0
    last_version: int = 0


class RunChange(msgspec.Struct):
    """What a batch changes in a run, from its charges in ledger order.

    `first` is the earliest of these charges in the ledger. `parts` are keyed by event id and day, in order of
    appearance; `part` belongs to the latest charge.
    """

    first: UsageCharged
    first_version: int
    last_version: int
    usage_types: list[UsageType]
    parts: dict[tuple[int, date], RunPart]
    part: RunPart
    part_key: tuple[int, date]

    @classmethod
    def from_first_charge(cls, charge: UsageCharged, version: int) -> RunChange:
        """Return an empty change for the run of a charge. The charge itself is not counted yet."""
        key = (charge.event_id, charge.day)
        part = RunPart(charge.event_name, charge.occurred_at, charge.occurred_at)
        return cls(charge, version, version, [charge.usage_type], {key: part}, part, key)

    def add(self, charge: UsageCharged, version: int) -> None:
        """Add a charge."""
        self.last_version = version
        if charge.usage_type not in self.usage_types:
            self.usage_types.append(charge.usage_type)
        key = (charge.event_id, charge.day)
        part = self.part if key == self.part_key else self._part(key, charge)
        part.credits += charge.credits
        part.photos += charge.new_photos
        part.event_name = charge.event_name
        part.last_version = version
        occurred_at = charge.occurred_at
        if occurred_at < part.first_occurred_at:
            part.first_occurred_at = occurred_at
        elif occurred_at > part.last_occurred_at:
            part.last_occurred_at = occurred_at

    def _part(self, key: tuple[int, date], charge: UsageCharged) -> RunPart:
        part = self.parts.get(key)
        if part is None:
            part = self.parts[key] = RunPart(charge.event_name, charge.occurred_at, charge.occurred_at)
        self.part, self.part_key = part, key
        return part

    @property
    def credits(self) -> int:
        return sum(part.credits for part in self.parts.values())

    @property
    def photos(self) -> int:
        return sum(part.photos for part in self.parts.values())

    @property
    def occurred_at(self) -> datetime:
        """The time of the earliest charge; it need not be the first one in the ledger."""
        return min(part.first_occurred_at for part in self.parts.values())

    @property
    def event_ids(self) -> list[int]:
        """Distinct event ids, in order of appearance."""
        return list(dict.fromkeys(event_id for event_id, _ in self.parts))


def fold_runs(entries: Sequence[LogEntry]) -> dict[RunKey, RunChange]:
    """Return the changes of log entries for each run."""
    runs: dict[RunKey, RunChange] = {}
    for _, stream, version, event in entries:
        if type(event) is UsageCharged and is_billable(event):
            key = (stream, event.run_id)
            run = runs.get(key)
            if run is None:
                run = runs[key] = RunChange.from_first_charge(event, version)
            run.add(event, version)
    return runs
