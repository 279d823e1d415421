"""The totals of a batch's runs, computed with what the tables contained of these runs before."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import TypeVar

import msgspec

from domain.pricing.rate_card import UsageType
from projections.credits.read_models import TransactionKind, TransactionType
from projections.credits.statement_rows import DayRow, MonthRow, PhotoEventRow, TransactionRow
from projections.credits.usage_runs import RunChange, RunKey, RunPart

ItemT = TypeVar("ItemT")

EventKey = tuple[bytes, date, int]
"""Stream (the 16 bytes of its UUID), month, event id."""


class ExistingRun(msgspec.Struct, frozen=True):
    """A run as the tables contain it before a batch."""

    month: date
    usage_types: list[UsageType]
    event_ids: list[int]


class StatementTotals:
    """Rows to add to the tables of the statement."""

    def __init__(self) -> None:
        self.runs: list[TransactionRow] = []
        self.months: dict[tuple[bytes, date], MonthRow] = {}
        self.days: dict[tuple[bytes, date, date], DayRow] = {}
        self.events: dict[EventKey, PhotoEventRow] = {}
        self.event_totals: dict[tuple[bytes, int], PhotoEventRow] = {}
        self.newly_named: dict[EventKey, None] = {}
        """Photo events that a run names for the first time. All others are in the tables already."""

    def add(self, key: RunKey, run: RunChange, known: ExistingRun | None) -> None:
        """Add a run's change to its row, its month, its days and its photo events."""
        stream, run_id = key
        month = known.month if known else run.first.day.replace(day=1)
        self.runs.append(_run_row(stream, run_id, month, run, known))
        card = self.months.get((stream, month))
        if card is None:
            card = self.months[stream, month] = MonthRow(stream.hex(), month)
        if known is None:
            card.runs += 1
        named = set(known.event_ids) if known else set()
        for (event_id, day), part in run.parts.items():
            card.credits += part.credits
            card.photos += part.photos
            self._add_to_day(stream, day, month, part)
            self._add_to_event(stream, month, event_id, part, newly_named=event_id not in named)
            named.add(event_id)

    def count_new_events(self, known: Collection[EventKey]) -> None:
        """Count the newly named photo events on their cards, except those in the tables already."""
        for stream, month, event_id in self.newly_named:
            if (stream, month, event_id) not in known:
                self.months[stream, month].events += 1

    def _add_to_day(self, stream: bytes, day: date, month: date, part: RunPart) -> None:
        row = self.days.get((stream, day, month))
        if row is None:
            row = self.days[stream, day, month] = DayRow(stream.hex(), day, month)
        row.credits += part.credits
        row.photos += part.photos

    def _add_to_event(
        self, stream: bytes, month: date, event_id: int, part: RunPart, *, newly_named: bool
    ) -> None:
        in_month = self.events.get((stream, month, event_id))
        if in_month is None:
            in_month = self.events[stream, month, event_id] = _event_row(stream, month, event_id, part)
        in_total = self.event_totals.get((stream, event_id))
        if in_total is None:
            in_total = self.event_totals[stream, event_id] = _event_row(stream, None, event_id, part)
        _add_part(in_month, part, newly_named=newly_named)
        _add_part(in_total, part, newly_named=newly_named)
        if newly_named:
            self.newly_named[stream, month, event_id] = None


def _run_row(
    stream: bytes, run_id: str, month: date, run: RunChange, known: ExistingRun | None
) -> TransactionRow:
    return TransactionRow(
        stream=stream.hex(),
        kind=TransactionKind.USAGE,
        reference=run_id,
        type=TransactionType.USAGE,
        credits=-run.credits,
        occurred_at=run.occurred_at,
        recorded_at=run.first.recorded_at,
        actor=run.first.actor,
        month=month,
        photos=run.photos,
        usage_types=_in_order(known.usage_types if known else [], run.usage_types),
        event_ids=_in_order(known.event_ids if known else [], run.event_ids),
        event_name=run.first.event_name,
        first_version=run.first_version,
        last_version=run.last_version,
    )


def _in_order(existing: list[ItemT], added: list[ItemT]) -> list[ItemT]:
    return list(dict.fromkeys([*existing, *added]))


def _event_row(stream: bytes, month: date | None, event_id: int, part: RunPart) -> PhotoEventRow:
    return PhotoEventRow(
        stream.hex(), month, event_id, part.event_name, part.first_occurred_at, part.last_occurred_at
    )


def _add_part(row: PhotoEventRow, part: RunPart, *, newly_named: bool) -> None:
    row.credits += part.credits
    row.photos += part.photos
    row.runs += newly_named
    row.first_occurred_at = min(row.first_occurred_at, part.first_occurred_at)
    row.last_occurred_at = max(row.last_occurred_at, part.last_occurred_at)
    if part.last_version > row.name_version:
        row.name_version = part.last_version
        row.event_name = part.event_name
