"""What the group commit needs of PostgreSQL: look-ups by key, and one transaction that appends."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

import msgspec
from psycopg import Cursor
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Composable, Literal

from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import InvariantViolation, StoreUnavailable
from domain.shared.event_store import EVENTS_CHANNEL, IdempotencyKey, StoredResponse
from infra.event_store.async_copy import fetch_results, send_statements, start_copy
from infra.event_store.connections import Connection, StoreConnections
from infra.event_store.datastore import LOG_END, TAKE_WRITE_LOCK, as_store_errors
from infra.event_store.mapper import COPY_EVENTS, KeyedStoredEvent, LedgerMapper, copy_rows

_VERSIONS: Final = """
    SELECT w.id, (SELECT max(e.originator_version) FROM ledger.events e WHERE e.originator_id = w.id)
    FROM unnest(%s::uuid[]) AS w (id)
"""
_RESPONSES: Final = """
    SELECT scope, key, request_digest, answer, "position" FROM ledger.idempotency_keys
    JOIN unnest(%s::text[], %s::text[]) AS w (scope, key) USING (scope, key)
"""
_DEDUPE_KEYS: Final = "SELECT dedupe_key FROM ledger.events WHERE dedupe_key = ANY(%s::uuid[])"
_POSITION_OF: Final = """
    SELECT notification_id FROM ledger.events
    WHERE originator_id = %s AND originator_version = %s AND topic = %s AND state = %s
"""
_INSERT_RESPONSE: Final = SQL(
    "INSERT INTO ledger.idempotency_keys (scope, key, request_digest, answer, position)"
    " VALUES ({}, {}, {}, {}, {})"
)
_INSERT_SNAPSHOT: Final = SQL(
    "INSERT INTO ledger.snapshots (originator_id, originator_version, topic, state)"
    " VALUES ({}, {}, {}, {}) ON CONFLICT DO NOTHING"
)

Responses = Mapping[tuple[str, str], tuple[bytes, StoredResponse]]
"""By scope and key: the digest of the request, and its answer."""
NewResponse = tuple[IdempotencyKey, bytes, int | None]
"""A key, its answer, and how many events of the transaction follow it; None if none come before it."""


class Found(msgspec.Struct, frozen=True):
    """What the log has: versions by stream (0: no history), answers, and which dedupe keys."""

    versions: dict[UUID, int]
    responses: Responses
    dedupe_keys: frozenset[bytes]


class CommandStore:
    """Used by one thread. Every method raises StoreUnavailable when the database is lost or the lock is."""

    def __init__(self, conninfo: str, mapper: LedgerMapper) -> None:
        self._connections = StoreConnections(conninfo)
        self._mapper = mapper

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def row(self, envelope: EventEnvelope) -> KeyedStoredEvent:
        """Return the row of an event or a snapshot."""
        return self._mapper.to_stored_event(envelope)

    def log_end(self) -> int:
        """Return the position of the last event."""
        with self._connections.use("writing") as connection:
            row = connection.execute(LOG_END).fetchone()
            assert row is not None
            return int(row[0])

    def responses(self, keys: Sequence[IdempotencyKey]) -> Responses:
        """Return what was answered under these keys."""
        if not keys:
            return {}
        with self._connections.use("writing") as connection:
            return _responses(connection.cursor(binary=True), keys)

    def look_up(
        self, streams: Collection[UUID], keys: Sequence[IdempotencyKey], dedupe_keys: Sequence[bytes]
    ) -> Found:
        """Return what the log has now."""
        with self._connections.use("writing") as connection:
            return _look_up(connection, streams, keys, dedupe_keys)

    @contextmanager
    def begin(self) -> Iterator[CommandTransaction]:
        """Open a transaction that holds the write lock; what is not appended is rolled back."""
        with self._connections.use("writing") as connection:
            connection.execute(f"BEGIN; {TAKE_WRITE_LOCK}; NOTIFY {EVENTS_CHANNEL}")
            transaction = CommandTransaction(self, connection)
            try:
                yield transaction
            finally:
                if transaction.is_open:
                    connection.execute("ROLLBACK")

    def discard(self, connection: Connection) -> None:
        """Close a connection whose state is unknown."""
        self._connections.discard(connection)

    def find_position(self, row: KeyedStoredEvent) -> int | None:
        """Return the position of a row, None where the log does not have it."""
        with self._connections.use("writing") as connection:
            values = (row.originator_id, row.originator_version, row.topic, row.state)
            found = connection.execute(_POSITION_OF, values).fetchone()
            return None if found is None else int(found[0])


class CommandTransaction:
    """A transaction under the write lock."""

    def __init__(self, store: CommandStore, connection: Connection) -> None:
        self.is_open = True
        self._store = store
        self._connection = connection

    def look_up(
        self, streams: Collection[UUID], keys: Sequence[IdempotencyKey], dedupe_keys: Sequence[bytes]
    ) -> Found:
        """Return what the log has; nobody else can append before the transaction ends."""
        return _look_up(self._connection, streams, keys, dedupe_keys)

    def append(
        self,
        rows: Sequence[KeyedStoredEvent],
        responses: Sequence[NewResponse],
        snapshots: Sequence[KeyedStoredEvent],
    ) -> int:
        """Append and commit; return the position of the last event in the log.

        A lost reply to the commit is settled by looking whether the rows are there.
        """
        log_end = 0 if rows else self.log_end()
        after = [
            *(self._insert_response(each, log_end) for each in responses),
            *(_snapshot_statement(each) for each in snapshots),
        ]
        statements = [each.as_string(self._connection) for each in after]
        self.is_open = False
        try:
            with as_store_errors():
                return self._commit(rows, statements) or log_end
        except StoreUnavailable:
            position = self._find_after_loss(rows)
            if position is None:
                raise
            return position

    def _commit(self, rows: Sequence[KeyedStoredEvent], statements: Sequence[str]) -> int:
        """Return the position of the last row, 0 without rows."""
        pgconn = self._connection.pgconn
        if not rows:
            send_statements(pgconn, "; ".join([*statements, "COMMIT"]).encode())
            fetch_results(pgconn)
            return 0
        text = "; ".join([COPY_EVENTS, "SELECT lastval()", *statements, "COMMIT"])
        start_copy(pgconn, text.encode(), copy_rows(rows))
        copied, last, *_ = fetch_results(pgconn)
        if copied.command_tuples != len(rows):
            raise InvariantViolation(f"{copied.command_tuples} of {len(rows)} events were stored")
        return int(last.get_value(0, 0) or 0)

    def log_end(self) -> int:
        """Return the position of the last event."""
        row = self._connection.execute(LOG_END).fetchone()
        assert row is not None
        return int(row[0])

    def _find_after_loss(self, rows: Sequence[KeyedStoredEvent]) -> int | None:
        """Return the position of the last row if the commit happened and only its reply was lost."""
        self._store.discard(self._connection)
        with suppress(StoreUnavailable):
            return self._store.find_position(rows[-1]) if rows else None
        return None

    @staticmethod
    def _insert_response(response: NewResponse, log_end: int) -> Composable:
        key, body, events_after = response
        position: Composable = (
            Literal(log_end)
            if log_end
            else SQL("coalesce((SELECT max(notification_id) FROM ledger.events), 0)")
            if events_after is None
            else SQL("lastval() - {}").format(Literal(events_after))
        )
        return _INSERT_RESPONSE.format(
            Literal(key.scope), Literal(key.key), Literal(key.request_digest), Literal(body), position
        )


def _look_up(
    connection: Connection,
    streams: Collection[UUID],
    keys: Sequence[IdempotencyKey],
    dedupe_keys: Sequence[bytes],
) -> Found:
    cursor = connection.cursor(binary=True)
    cursor.execute(_VERSIONS, (list(streams),), prepare=True)
    versions = {stream: version or 0 for stream, version in cursor}
    responses = _responses(cursor, keys) if keys else {}
    recorded: frozenset[bytes] = frozenset()
    if dedupe_keys:
        cursor.execute(_DEDUPE_KEYS, ([UUID(bytes=key) for key in dedupe_keys],), prepare=True)
        recorded = frozenset(key.bytes for (key,) in cursor)
    return Found(versions, responses, recorded)


def _responses(cursor: Cursor[TupleRow], keys: Sequence[IdempotencyKey]) -> Responses:
    cursor.execute(_RESPONSES, ([key.scope for key in keys], [key.key for key in keys]), prepare=True)
    return {
        (scope, key): (digest, StoredResponse(answer, position))
        for scope, key, digest, answer, position in cursor
    }


def _snapshot_statement(row: KeyedStoredEvent) -> Composable:
    values = (row.originator_id, row.originator_version, row.topic, row.state)
    return _INSERT_SNAPSHOT.format(*map(Literal, values))
