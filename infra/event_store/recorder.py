"""The library's recorders on the ledger's tables. They write with COPY and read binary rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NoReturn
from uuid import UUID

import msgspec
from eventsourcing.application import Application
from eventsourcing.persistence import (
    AggregateRecorder,
    Mapper,
    NotSupportedError,
    StoredEvent,
    Transcoder,
)
from eventsourcing.persistence import EventStore as LibraryEventStore
from eventsourcing.postgres import (
    BasePostgresFactory,
    PostgresAggregateRecorder,
    PostgresApplicationRecorder,
    PostgresFactory,
)
from eventsourcing.utils import Environment
from psycopg import Connection
from psycopg.rows import tuple_row

from domain.shared.aggregate import A, EventEnvelope
from domain.shared.errors import IdempotencyConflict, InvariantViolation
from domain.shared.event_store import (
    EVENTS_CHANNEL,
    Command,
    CommandOutcome,
    EventStore,
    IdempotencyKey,
    StoredResponse,
)
from infra.event_store.command_transaction import CommandStore
from infra.event_store.datastore import LOG_END, TAKE_WRITE_LOCK, LedgerDatastore
from infra.event_store.group_commit import GroupCommit, current
from infra.event_store.library_settings import UnsupportedSetting, check_settings
from infra.event_store.mapper import COPY_EVENTS, LedgerMapper, copy_rows
from infra.event_store.subscription import LedgerSubscription

_SELECT_EVENTS: Final = """
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s
    ORDER BY originator_version {order} LIMIT %s
"""
# Ignore a snapshot without an event of its version: that version was never committed.
_SELECT_SNAPSHOTS: Final = """
    SELECT s.originator_id, s.originator_version, s.topic, s.state FROM ledger.snapshots s
    WHERE s.originator_id = %s AND s.originator_version > %s AND s.originator_version <= %s
      AND EXISTS (SELECT 1 FROM ledger.events e
                  WHERE e.originator_id = s.originator_id AND e.originator_version = s.originator_version)
    ORDER BY s.originator_version {order} LIMIT %s
"""
_SELECT_BY_DEDUPE_KEY: Final = """
    SELECT originator_id, originator_version, topic, state FROM ledger.events WHERE dedupe_key = %s
"""
_INSERT_SNAPSHOT: Final = """
    INSERT INTO ledger.snapshots (originator_id, originator_version, topic, state)
    VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_INSERT_RESPONSE: Final = """
    INSERT INTO ledger.idempotency_keys (scope, key, request_digest, answer, "position")
    VALUES (%s, %s, %s, %s, %s)
"""
_SELECT_RESPONSE: Final = """
    SELECT request_digest, answer, "position" FROM ledger.idempotency_keys WHERE scope = %s AND key = %s
"""
_NO_TRACKING: Final = (
    "the ledger follows no other application: positions of what it reads are in ledger.consumer_positions"
)
_ALL: Final = (1 << 63) - 1


class _Reader(PostgresAggregateRecorder):
    """Reads events of a stream as binary tuples. This is six times as fast as the library's dict rows."""

    statement: str

    def create_table(self) -> NoReturn:
        """Refuse: migrations create the tables, with privileges that a recorder does not have."""
        raise NotSupportedError("`creditledger migrate` creates the tables")

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return stored events in version order."""
        bounds = (
            originator_id,
            -1 if gt is None else gt,
            _ALL if lte is None else lte,
            _ALL if limit is None else limit,
        )
        with (
            self.datastore.get_connection() as connection,
            connection.cursor(binary=True, row_factory=tuple_row) as cursor,
        ):
            cursor.execute(self.statement.format(order="DESC" if desc else "ASC"), bounds, prepare=True)
            return [StoredEvent(*row) for row in cursor]


class LedgerRecorder(_Reader, PostgresApplicationRecorder):
    """Appends to ledger.events: write lock, NOTIFY, COPY and the stored response in one transaction."""

    datastore: LedgerDatastore
    statement = _SELECT_EVENTS

    def __init__(self, datastore: LedgerDatastore, *, events_table_name: str = "events") -> None:
        super().__init__(datastore, events_table_name=events_table_name)
        self.channel_name = EVENTS_CHANNEL

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """Append rows. With `idempotency_key`, store `response` under it in the same transaction.

        Returns:
            The positions of the rows. For a response without rows: the end of the log.

        Raises:
            VersionConflict, DuplicateKey, StoreUnavailable.
            NotSupportedError: `tracking` is given.
        """
        if kwargs.get("tracking") is not None:
            raise NotSupportedError(_NO_TRACKING)
        idempotency_key: IdempotencyKey | None = kwargs.get("idempotency_key")
        if not stored_events and idempotency_key is None:
            return []
        with self.datastore.get_connection() as connection, connection.transaction():
            connection.execute(f"{TAKE_WRITE_LOCK}; NOTIFY {EVENTS_CHANNEL}")
            positions = _copy_in(connection, stored_events)
            if idempotency_key is not None:
                row = (
                    idempotency_key.scope,
                    idempotency_key.key,
                    idempotency_key.request_digest,
                    kwargs["response"],
                    positions[-1],
                )
                connection.execute(_INSERT_RESPONSE, row, prepare=True)
        return positions

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> LedgerSubscription:
        """Return an iterator over present and future events above a position. Leave its context to end it."""
        return LedgerSubscription(self, gt, topics)

    def log_end(self) -> int:
        """Return the position of the last event in the log; 0 if the log is empty."""
        with (
            self.datastore.get_connection() as connection,
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            row = cursor.execute(LOG_END).fetchone()
        assert row is not None
        return int(row[0])

    def select_by_dedupe_key(self, key: bytes) -> StoredEvent | None:
        """Return the event with a dedupe key, or None."""
        with (
            self.datastore.get_connection() as connection,
            connection.cursor(binary=True, row_factory=tuple_row) as cursor,
        ):
            row = cursor.execute(_SELECT_BY_DEDUPE_KEY, (UUID(bytes=key),), prepare=True).fetchone()
        return None if row is None else StoredEvent(*row)

    def select_stored_response(self, idempotency_key: IdempotencyKey) -> StoredResponse | None:
        """Return the response stored under an idempotency key, or None.

        Raises:
            IdempotencyConflict: the key belongs to a different request.
        """
        with (
            self.datastore.get_connection() as connection,
            connection.cursor(binary=True, row_factory=tuple_row) as cursor,
        ):
            row = cursor.execute(
                _SELECT_RESPONSE, (idempotency_key.scope, idempotency_key.key), prepare=True
            ).fetchone()
        if row is None:
            return None
        digest, answer, position = row
        if digest != idempotency_key.request_digest:
            raise IdempotencyConflict
        return StoredResponse(answer, position)


class SnapshotRecorder(_Reader):
    """Stores snapshots. Storing the same snapshot twice has no effect."""

    statement = _SELECT_SNAPSHOTS

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> None:
        """Store snapshots."""
        with self.datastore.get_connection() as connection, connection.cursor() as cursor:
            cursor.executemany(
                _INSERT_SNAPSHOT,
                [(e.originator_id, e.originator_version, e.topic, e.state) for e in stored_events],
            )


class LedgerEventStore(EventStore):
    """The library's event store on ledger.events, with idempotency keys and look-ups for commands."""

    mapper: LedgerMapper
    recorder: LedgerRecorder

    def __init__(self, mapper: LedgerMapper, recorder: LedgerRecorder) -> None:
        super().__init__(mapper, recorder)
        self.group_commit = GroupCommit(CommandStore(recorder.datastore.conninfo, mapper))

    def get(
        self,
        originator_id: UUID,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Iterator[EventEnvelope]:
        """See `domain.shared.event_store.EventStore.get`."""
        rows = self.recorder.select_events(originator_id, gt=gt, lte=lte, desc=desc, limit=limit)
        return map(self.mapper.to_domain_event, rows)

    def run(self, command: Command) -> CommandOutcome:
        """See `domain.shared.event_store.EventStore.run`."""
        datastore = self.recorder.datastore
        return self._run_exclusively(command) if datastore.is_exclusive else self.group_commit.run(command)

    def current(self, stream: UUID, load: Callable[[], A]) -> A:
        """See `domain.shared.event_store.EventStore.current`."""
        return current(stream, load)

    def _run_exclusively(self, command: Command) -> CommandOutcome:
        """Decide and append in the transaction that the caller holds."""
        key = command.idempotency_key
        found = None if key is None else self.find_stored_response(key)
        if found is not None:
            return CommandOutcome(None, found.body, found.position)
        aggregates, value = command.decide()
        events: list[EventEnvelope] = []
        for aggregate in aggregates:
            aggregate.check_invariants()
            events += aggregate.collect_events()
        position = self.append(events, idempotency_key=key, response=msgspec.json.encode(value))
        return CommandOutcome(value, None, position)

    def append(
        self, events: Sequence[EventEnvelope], *, idempotency_key: IdempotencyKey | None, response: bytes
    ) -> int:
        """See `domain.shared.event_store.EventStore.append`."""
        rows = [self.mapper.to_stored_event(envelope) for envelope in events]
        positions = self.recorder.insert_events(rows, idempotency_key=idempotency_key, response=response)
        return positions[-1] if positions else self.log_end()

    def exclusive(self) -> AbstractContextManager[None]:
        """See `domain.shared.event_store.EventStore.exclusive`."""
        return self.recorder.datastore.exclusive()

    def find_stored_response(self, idempotency_key: IdempotencyKey) -> StoredResponse | None:
        """See `domain.shared.event_store.EventStore.find_stored_response`."""
        return self.recorder.select_stored_response(idempotency_key)

    def log_end(self) -> int:
        """See `domain.shared.event_store.EventStore.log_end`."""
        return self.recorder.log_end()

    def find_by_dedupe_key(self, key: bytes) -> EventEnvelope | None:
        """See `domain.shared.event_store.EventStore.find_by_dedupe_key`."""
        row = self.recorder.select_by_dedupe_key(key)
        return None if row is None else self.mapper.to_domain_event(row)


def event_store_of(ledger: Application[UUID]) -> LedgerEventStore:
    """Return the event store of the ledger, for adapters that share its connections.

    Raises:
        TypeError: the ledger is not on PostgreSQL.
    """
    if not isinstance(ledger.events, LedgerEventStore):
        raise TypeError(f"{type(ledger.events).__name__} is not the event store on PostgreSQL")
    return ledger.events


class LedgerFactory(PostgresFactory):
    """Builds the ledger's recorders. The library finds it by `PERSISTENCE_MODULE`."""

    DATABASE_URL = "DATABASE_URL"
    POOL_SIZE = "POOL_SIZE"
    datastore: LedgerDatastore

    def __init__(self, env: Environment) -> None:
        """Take the environment.

        Raises:
            UnsupportedSetting: it sets a variable of the library that the ledger refuses.
        """
        check_settings(env)
        super(BasePostgresFactory, self).__init__(env)  # the parent's constructor reads POSTGRES_* variables
        self._group_commits: list[GroupCommit] = []
        self.datastore = LedgerDatastore(
            env.get(self.DATABASE_URL, ""), pool_size=int(env.get(self.POOL_SIZE, "4"))
        )

    def close(self) -> None:
        """Refuse the commands that wait, finish those under way, and close the connections."""
        for group_commit in self._group_commits:
            group_commit.close()
        super().close()

    def mapper(
        self, transcoder: Transcoder | None = None, mapper_class: type[Mapper[Any]] | None = None
    ) -> Mapper[Any]:
        """Return the mapper of events. It has its own codec, so it uses no transcoder.

        Raises:
            UnsupportedSetting: the caller requests another mapper class.
        """
        if mapper_class not in (None, LedgerMapper):
            raise UnsupportedSetting("the ledger's rows have one mapper: LedgerMapper")
        return LedgerMapper()

    def event_store(
        self, mapper: Mapper[Any] | None = None, recorder: AggregateRecorder | None = None
    ) -> LibraryEventStore[Any]:
        """Return the event store, or the library's plain store for snapshots."""
        mapper = mapper or self.mapper()
        recorder = recorder or self.application_recorder()
        if isinstance(recorder, LedgerRecorder) and isinstance(mapper, LedgerMapper):
            store = LedgerEventStore(mapper, recorder)
            self._group_commits.append(store.group_commit)
            return store
        return LibraryEventStore(mapper, recorder)

    def application_recorder(self) -> LedgerRecorder:
        """Return the recorder of ledger.events."""
        return LedgerRecorder(self.datastore, events_table_name="events")

    def aggregate_recorder(self, purpose: str = "events") -> SnapshotRecorder:
        """Return the recorder of ledger.snapshots. No other purpose exists."""
        if purpose != "snapshots":
            raise NotSupportedError(f"the ledger has no table of {purpose} besides the log")
        return SnapshotRecorder(self.datastore, events_table_name="snapshots")

    def process_recorder(self) -> NoReturn:
        """Refuse: the ledger does not follow another application."""
        raise NotSupportedError(_NO_TRACKING)

    def tracking_recorder(self, tracking_recorder_class: type[Any] | None = None) -> NoReturn:
        """Refuse: the ledger does not follow another application."""
        raise NotSupportedError(_NO_TRACKING)


def _copy_in(connection: Connection[Any], stored_events: Sequence[StoredEvent]) -> Sequence[int]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        if not stored_events:
            row = cursor.execute(LOG_END).fetchone()
            assert row is not None
            return row
        with cursor.copy(COPY_EVENTS) as copy:
            copy.write(copy_rows(stored_events))
        if cursor.rowcount != len(stored_events):
            raise InvariantViolation(f"{cursor.rowcount} of {len(stored_events)} events were stored")
        row = cursor.execute("SELECT lastval()").fetchone()
        assert row is not None
        # Positions are drawn under the write lock, so those of one COPY have no gaps.
        return list(range(row[0] - len(stored_events) + 1, row[0] + 1))
