"""The projection `statement`: the list of transactions, and the usage totals by month, day and photo event.

It is one projection, not five: its tables change in one transaction, so the cards equal the sum of the rows,
of the photo events and of the days at every moment. A run counts with all its charges in the month of
its first charge in ledger order. The run's row stores this month.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from psycopg.rows import tuple_row

from projections.connection import Connection
from projections.credits.statement_additions import fold_additions
from projections.credits.statement_rows import (
    ADD_DAYS,
    ADD_EVENT_TOTALS,
    ADD_EVENTS,
    ADD_MONTHS,
    ADD_TRANSACTIONS,
    TransactionRow,
)
from projections.credits.statement_totals import EventKey, ExistingRun, StatementTotals
from projections.credits.usage_runs import RunChange, RunKey, fold_runs
from projections.engine.event_log import LogEntry
from projections.engine.upserts import write_rows

# LIMIT makes each row a primary-key look-up, even if the planner has no statistics of the table.
_KNOWN_RUNS: Final = """
    SELECT uuid_send(requested.stream), requested.run_id, existing.*
    FROM unnest(%s::uuid[], %s::text[]) AS requested (stream, run_id)
    CROSS JOIN LATERAL (
        SELECT month, usage_types, event_ids FROM transactions
        WHERE stream = requested.stream AND kind = 'usage' AND reference = requested.run_id LIMIT 1
    ) AS existing
"""

_KNOWN_EVENTS: Final = """
    SELECT uuid_send(requested.stream), requested.month, requested.event_id
    FROM unnest(%s::uuid[], %s::date[], %s::bigint[]) AS requested (stream, month, event_id)
    CROSS JOIN LATERAL (
        SELECT 1 FROM event_usage
        WHERE stream = requested.stream AND month = requested.month AND event_id = requested.event_id LIMIT 1
    ) AS existing
"""


class StatementProjection:
    """Folds charges and additions into `transactions` and its totals."""

    name = "statement"
    tables = ("transactions", "usage_months", "usage_days", "event_usage", "event_totals")

    def fold(self, entries: Sequence[LogEntry]) -> StatementChanges:
        """Return the runs and additions of a batch."""
        return StatementChanges(fold_runs(entries), fold_additions(entries))


class StatementChanges:
    """What a batch changes in the tables of the statement."""

    def __init__(self, runs: Mapping[RunKey, RunChange], additions: Sequence[TransactionRow]) -> None:
        self._runs = runs
        self._additions = additions

    def write(self, connection: Connection) -> None:
        """Add the batch to the tables."""
        sums = StatementTotals()
        known = _known_runs(connection, self._runs)
        for key, run in self._runs.items():
            sums.add(key, run, known.get(key))
        sums.count_new_events(_known_events(connection, list(sums.newly_named)))
        write_rows(connection, ADD_TRANSACTIONS, [*sums.runs, *self._additions])
        write_rows(connection, ADD_MONTHS, list(sums.months.values()))
        write_rows(connection, ADD_DAYS, list(sums.days.values()))
        write_rows(connection, ADD_EVENTS, list(sums.events.values()))
        write_rows(connection, ADD_EVENT_TOTALS, list(sums.event_totals.values()))


def _known_runs(connection: Connection, runs: Iterable[RunKey]) -> dict[RunKey, ExistingRun]:
    keys = list(runs)
    if not keys:
        return {}
    found = connection.cursor(row_factory=tuple_row).execute(
        _KNOWN_RUNS, [[stream.hex() for stream, _ in keys], [run_id for _, run_id in keys]], binary=True
    )
    return {(stream, run_id): ExistingRun(*known) for stream, run_id, *known in found}


def _known_events(connection: Connection, keys: Sequence[EventKey]) -> set[EventKey]:
    if not keys:
        return set()
    streams, months, event_ids = zip(*keys, strict=True)
    found = connection.cursor(row_factory=tuple_row).execute(
        _KNOWN_EVENTS, [[stream.hex() for stream in streams], list(months), list(event_ids)], binary=True
    )
    return set(found)
