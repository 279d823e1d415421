"""The usage path on PostgreSQL: positions, write lock, COPY and commit in three round trips per batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Literal

from consumers.usage.ports import ParkedMessage, PositionMove
from domain.credits.events import UsageCharged
from domain.credits.organisation import Organisation, evolve
from domain.event_catalogue import EventCodec
from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import CheckpointConflict, InvariantViolation, StoreUnavailable
from domain.shared.event_store import EVENTS_CHANNEL
from infra.event_store.async_copy import fetch_results, send_statements, start_copy
from infra.event_store.connections import Connection, StoreConnections
from infra.event_store.datastore import LOG_END, TAKE_WRITE_LOCK, as_store_errors
from infra.event_store.mapper import COPY_EVENTS, LedgerMapper

_MOVE: Final = SQL(
    "UPDATE ledger.consumer_positions"
    " SET next_offset = {next}, last_record_digest = {digest}, updated_at = now()"
    " WHERE topic = {topic} AND partition = {partition} AND topic_id = {topic_id}"
    " AND next_offset = {expected}"
)
# OFFSET 0 makes PostgreSQL run each lateral look-up as a separate index scan.
_LOAD: Final = """
    WITH base AS MATERIALIZED (
        SELECT w.id, s.originator_version AS version, s.topic, s.state
        FROM unnest(%s::uuid[]) AS w (id)
        LEFT JOIN LATERAL (
            SELECT * FROM ledger.snapshots s
            WHERE s.originator_id = w.id
              AND EXISTS (SELECT 1 FROM ledger.events e
                          WHERE e.originator_id = s.originator_id
                            AND e.originator_version = s.originator_version)
            ORDER BY s.originator_version DESC LIMIT 1
        ) s ON true
    )
    SELECT id, version, topic, state FROM base WHERE version IS NOT NULL
    UNION ALL
    SELECT base.id, e.originator_version, e.topic, e.state
    FROM base CROSS JOIN LATERAL (
        SELECT * FROM ledger.events e
        WHERE e.originator_id = base.id AND e.originator_version > coalesce(base.version, 0) OFFSET 0
    ) e
    ORDER BY 1, 2
"""
_AFTER: Final = """
    SELECT w.id, e.originator_version, e.topic, e.state
    FROM unnest(%s::uuid[], %s::bigint[]) AS w (id, version)
    CROSS JOIN LATERAL (
        SELECT * FROM ledger.events e
        WHERE e.originator_id = w.id AND e.originator_version > w.version OFFSET 0
    ) e
    ORDER BY 1, 2
"""
_RECORDED: Final = """
    SELECT dedupe_key, originator_id, topic, state FROM ledger.events WHERE dedupe_key = ANY(%s::uuid[])
"""
_PARKED: Final = """
    SELECT dedupe_key, organisation_id, report, record_key, record_value, record_headers, topic, partition,
           record_offset, parked_at
    FROM ledger.parked_messages
"""
_PARKED_UNDER_KEYS: Final = "WHERE dedupe_key = ANY(%s::uuid[])"
_UNDER_LOCK: Final = """
    SELECT (SELECT coalesce(max(notification_id), 0) FROM ledger.events),
           EXISTS (SELECT 1 FROM ledger.parked_messages)
"""
_PARK: Final = """
    INSERT INTO ledger.parked_messages
        (dedupe_key, stream, organisation_id, report, record_key, record_value, record_headers, topic,
         partition, record_offset, parked_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_INSERT_SNAPSHOT: Final = SQL(
    "INSERT INTO ledger.snapshots (originator_id, originator_version, topic, state)"
    " VALUES ({}, {}, {}, {}) ON CONFLICT DO NOTHING"
)


class PostgresUsageStore:
    """Implements `consumers.usage.ports.UsageStore`.

    One connection writes while the other one reads ahead.
    """

    def __init__(self, conninfo: str, mapper: LedgerMapper | None = None) -> None:
        self.mapper = mapper or LedgerMapper()
        self._connections = StoreConnections(conninfo)

    def close(self) -> None:
        """Close both connections. The next use opens new ones."""
        self._connections.close()

    def log_end(self) -> int:
        with self._connections.use("reading") as connection:
            row = connection.execute(LOG_END).fetchone()
            assert row is not None
            return int(row[0])

    def load(self, streams: Collection[UUID]) -> dict[UUID, Organisation]:
        with self._connections.use("reading") as connection:
            return load_organisations(connection, self.mapper.codec, streams)

    def recorded(self, keys: Sequence[bytes]) -> dict[bytes, tuple[UUID, UsageCharged]]:
        with self._connections.use("reading") as connection, _binary(connection) as cursor:
            cursor.execute(_RECORDED, (_uuids(keys),), prepare=True)
            decode = self.mapper.codec.decode
            found = {}
            for key, stream, topic, state in cursor:
                event = decode(topic, state)
                if isinstance(event, UsageCharged):
                    found[key.bytes] = (stream, event)
            return found

    def parked(self, keys: Sequence[bytes]) -> Mapping[bytes, ParkedMessage]:
        messages = self._parked_where(_PARKED_UNDER_KEYS, (_uuids(keys),))
        return {message.dedupe_key: message for message in messages}

    def parked_with_open_organisation(self, limit: int) -> list[ParkedMessage]:
        """Return parked messages whose organisation is open now, oldest first."""
        known = """
            WHERE EXISTS (SELECT 1 FROM ledger.events e
                          WHERE e.originator_id = stream AND e.originator_version = 1)
            ORDER BY parked_at, topic, partition, record_offset LIMIT %s
        """
        return self._parked_where(known, (limit,))

    def parked_before(self, moment: datetime, limit: int) -> list[ParkedMessage]:
        """Return messages that were parked before a moment and whose organisation is still unknown."""
        unknown = """
            WHERE parked_at < %s
              AND NOT EXISTS (SELECT 1 FROM ledger.events e
                              WHERE e.originator_id = stream AND e.originator_version = 1)
            ORDER BY parked_at LIMIT %s
        """
        return self._parked_where(unknown, (moment, limit))

    def rows(self, events: Sequence[EventEnvelope], charge_keys: Sequence[bytes]) -> bytes:
        return self.mapper.charge_rows(events, charge_keys)

    def begin(self, moves: Sequence[PositionMove]) -> PostgresUsageTransaction:
        with self._connections.use("writing") as connection:
            cursor = connection.cursor()
            # Lock the positions before the write lock, always in the same order, to avoid deadlocks.
            ordered = sorted(moves, key=lambda move: (move.topic, move.partition))
            statements = [_move_statement(move).as_string(connection) for move in ordered]
            cursor.execute(
                "; ".join(["BEGIN", *statements, TAKE_WRITE_LOCK, f"NOTIFY {EVENTS_CHANNEL}", _UNDER_LOCK])
            )
            for move in ordered:
                cursor.nextset()
                if cursor.rowcount != 1:
                    connection.execute("ROLLBACK")
                    raise CheckpointConflict(
                        f"the position of {move.topic}/{move.partition} is not {move.expected_offset}"
                    )
            while cursor.nextset():
                pass
            row = cursor.fetchone()
            assert row is not None
            return PostgresUsageTransaction(self, connection, log_end=row[0], has_parked=row[1])

    def discard(self, connection: Connection) -> None:
        """Close a connection whose state is unknown. The server then rolls back its transaction."""
        self._connections.discard(connection)

    def _parked_where(self, condition: str, values: tuple[Any, ...]) -> list[ParkedMessage]:
        with self._connections.use("reading") as connection, _binary(connection) as cursor:
            return _select_parked(cursor, condition, values)


class PostgresUsageTransaction:
    """Implements `consumers.usage.ports.UsageTransaction`. Any error ends the transaction."""

    def __init__(
        self, store: PostgresUsageStore, connection: Connection, *, log_end: int, has_parked: bool
    ) -> None:
        self.log_end = log_end
        self.has_parked = has_parked
        self._store = store
        self._connection = connection
        self._rows = 0

    def parked(self, keys: Sequence[bytes]) -> Mapping[bytes, ParkedMessage]:
        with self._statement() as cursor:
            messages = _select_parked(cursor, _PARKED_UNDER_KEYS, (_uuids(keys),))
            return {message.dedupe_key: message for message in messages}

    def streams_appended_after(self, position: int) -> set[UUID]:
        with self._statement() as cursor:
            cursor.execute(
                "SELECT DISTINCT originator_id FROM ledger.events WHERE notification_id > %s",
                (position,),
                prepare=True,
            )
            return {stream for (stream,) in cursor}

    def catch_up(self, organisations: Collection[Organisation]) -> None:
        with self._statement() as cursor:
            by_stream = {organisation.id: organisation for organisation in organisations}
            versions = [organisation.version for organisation in by_stream.values()]
            cursor.execute(_AFTER, (list(by_stream), versions), prepare=True)
            decode = self._store.mapper.codec.decode
            for stream, version, topic, state in cursor:
                EventEnvelope(stream, version, decode(topic, state)).mutate(by_stream[stream])

    def load(self, streams: Collection[UUID]) -> dict[UUID, Organisation]:
        with self._guard():
            return load_organisations(self._connection, self._store.mapper.codec, streams)

    def park(self, messages: Sequence[ParkedMessage], streams: Sequence[UUID]) -> None:
        with self._statement() as cursor:
            cursor.executemany(
                _PARK,
                [
                    (
                        UUID(bytes=message.dedupe_key),
                        stream,
                        message.organisation_id,
                        message.report,
                        message.record_key,
                        message.record_value,
                        message.record_headers,
                        message.topic,
                        message.partition,
                        message.record_offset,
                        message.parked_at,
                    )
                    for message, stream in zip(messages, streams, strict=True)
                ],
            )

    def unpark(self, keys: Sequence[bytes]) -> int:
        with self._statement() as cursor:
            cursor.execute(
                "DELETE FROM ledger.parked_messages WHERE dedupe_key = ANY(%s::uuid[])", (_uuids(keys),)
            )
            return cursor.rowcount

    def start_commit(
        self, events: Sequence[EventEnvelope], payload: bytes, snapshots: Sequence[EventEnvelope]
    ) -> None:
        with self._guard():
            self._rows = len(events)
            if events:
                snapshot_inserts = [self._snapshot_statement(snapshot) for snapshot in snapshots]
                statements = "; ".join([COPY_EVENTS, "SELECT lastval()", *snapshot_inserts, "COMMIT"])
                start_copy(self._connection.pgconn, statements.encode(), payload)
            else:
                send_statements(self._connection.pgconn, b"COMMIT")

    def finish_commit(self) -> int:
        with self._guard():
            results = fetch_results(self._connection.pgconn)
        if not self._rows:
            return self.log_end
        copied, last_position, *_ = results
        if copied.command_tuples != self._rows:
            raise InvariantViolation(f"{copied.command_tuples} of {self._rows} events were stored")
        return int(last_position.get_value(0, 0) or 0)

    def _snapshot_statement(self, snapshot: EventEnvelope) -> str:
        row = self._store.mapper.to_stored_event(snapshot)
        values = (row.originator_id, row.originator_version, row.topic, row.state)
        return _INSERT_SNAPSHOT.format(*map(Literal, values)).as_string(self._connection)

    def rollback(self) -> None:
        with suppress(StoreUnavailable), self._guard():
            self._connection.execute("ROLLBACK")

    @contextmanager
    def _statement(self) -> Iterator[Cursor[TupleRow]]:
        with self._guard(), _binary(self._connection) as cursor:
            yield cursor

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """End the transaction on any error: roll back if possible, otherwise close the connection."""
        with as_store_errors():
            try:
                yield
            except psycopg.errors.UniqueViolation:
                if self._connection.info.transaction_status is TransactionStatus.INERROR:
                    self._connection.execute("ROLLBACK")
                raise
            except BaseException:
                self._store.discard(self._connection)
                raise


def load_organisations(
    connection: Connection, codec: EventCodec, streams: Iterable[UUID]
) -> dict[UUID, Organisation]:
    """Load organisations from their latest snapshots and the later events, in one query."""
    organisations: dict[UUID, Organisation] = {}
    with _binary(connection) as cursor:
        cursor.execute(_LOAD, (list(streams),), prepare=True)
        for stream, version, topic, state in cursor:
            envelope = EventEnvelope(stream, version, codec.decode(topic, state))
            organisations[stream] = evolve(organisations.get(stream), envelope)
    return organisations


def _select_parked(cursor: Cursor[TupleRow], condition: str, values: tuple[Any, ...]) -> list[ParkedMessage]:
    cursor.execute(_PARKED + condition, values)
    return [ParkedMessage(key.bytes, *rest) for key, *rest in cursor]


def _binary(connection: Connection) -> Cursor[TupleRow]:
    return connection.cursor(binary=True)


def _uuids(keys: Sequence[bytes]) -> list[UUID]:
    return [UUID(bytes=key) for key in keys]


def _move_statement(move: PositionMove) -> Any:
    return _MOVE.format(
        next=Literal(move.next_offset),
        digest=Literal(move.last_record_digest),
        topic=Literal(move.topic),
        partition=Literal(move.partition),
        topic_id=Literal(move.topic_id),
        expected=Literal(move.expected_offset),
    )
