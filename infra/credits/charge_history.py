"""Refunds of a charge and charges of a run, from the log; the read side tells where in it to look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import msgspec
from eventsourcing.persistence import StoredEvent
from psycopg import Cursor
from psycopg.rows import TupleRow, tuple_row

from domain.credits.events import UsageCharged, is_billable
from domain.credits.ledger import Ledger
from domain.pricing.rate_card import UsageType
from domain.shared.aggregate import EventEnvelope
from infra.event_store.group_commit import require_committed
from infra.event_store.recorder import event_store_of

_SELECT_REFUNDS: Final = """
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE originator_id = %s AND refers_to = %s ORDER BY originator_version
"""
# A run's charges are between two versions, or after the last version that both projections have read.
_SELECT_RUN: Final = """
    SELECT balances.version, run.first_version, run.last_version
    FROM projections.balances
    JOIN projections.positions AS balance ON balance.projection = 'balance'
    JOIN projections.positions AS statement
        ON statement.projection = 'statement' AND statement."position" >= balance."position"
    LEFT JOIN projections.transactions AS run
        ON run.stream = balances.stream AND run.kind = 'usage' AND run.reference = %(run_id)s
    WHERE balances.stream = %(stream)s
"""
_SELECT_EVENTS_OF_RUN: Final = """
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE originator_id = %(stream)s AND originator_version BETWEEN %(first)s AND %(last)s
        AND position(%(run)s IN state) > 0
    UNION ALL
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE originator_id = %(stream)s
        AND originator_version > %(projected)s AND originator_version <= %(version)s
        AND position(%(run)s IN state) > 0
"""


class PostgresChargeHistory:
    """See `domain.credits.charge_history.ChargeHistory`. It reads on the connections of the event store."""

    def __init__(self, ledger: Ledger) -> None:
        store = event_store_of(ledger)
        self._datastore = store.recorder.datastore
        self._mapper = store.mapper

    def refunds_of(self, stream: UUID, charge: int) -> list[EventEnvelope]:
        """See `domain.credits.charge_history.ChargeHistory.refunds_of`."""
        require_committed(stream)
        with self._cursor() as cursor:
            cursor.execute(_SELECT_REFUNDS, (stream, charge), prepare=True)
            return [self._mapper.to_domain_event(StoredEvent(*row)) for row in cursor]

    def photos_reported(self, stream: UUID, run_id: str, version: int) -> Mapping[UsageType, int]:
        """See `domain.credits.charge_history.ChargeHistory.photos_reported`."""
        photos: Counter[UsageType] = Counter()
        for envelope in self._events_of_run(stream, run_id, version):
            event = envelope.event
            if isinstance(event, UsageCharged) and event.run_id == run_id and is_billable(event):
                photos[event.usage_type] += event.new_photos
        return photos

    def _events_of_run(self, stream: UUID, run_id: str, version: int) -> list[EventEnvelope]:
        """Return events up to a version: all charges of a run are among them, however far projections are."""
        with self._cursor() as cursor:
            found = {"stream": stream, "run_id": run_id}
            row = cursor.execute(_SELECT_RUN, found, prepare=True).fetchone()
            projected, first, last = (0, None, None) if row is None else row
            projected = min(projected, version)
            if first is None and projected == version and row is not None:
                return []  # the projections have read all of the history, and found no such run
            bounds = {
                "stream": stream,
                "run": msgspec.json.encode(run_id),  # as in the events of the run
                "first": 1 if first is None else first,
                "last": 0 if last is None else min(last, projected),
                "projected": projected,
                "version": version,
            }
            cursor.execute(_SELECT_EVENTS_OF_RUN, bounds)
            return [self._mapper.to_domain_event(StoredEvent(*row)) for row in cursor]

    @contextmanager
    def _cursor(self) -> Iterator[Cursor[TupleRow]]:
        with (
            self._datastore.get_connection() as connection,
            connection.cursor(binary=True, row_factory=tuple_row) as cursor,
        ):
            yield cursor
