"""The feeds of the topics: all events, and the latest balances of changed organisations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
from psycopg.rows import tuple_row

from consumers.publishing.public_balances import public_balance
from consumers.publishing.public_events import public_event
from domain.credits.events import OrganisationOpened
from domain.event_catalogue import ORGANISATION_EVENT_CLASSES, EventCodec
from domain.shared.errors import InvariantViolation
from projections.connection import Connection
from projections.engine.event_log import EventLog, log_end

Message = tuple[bytes, bytes]
"""Key (the organisation's id) and value of a record."""

EVENTS_PER_BATCH: Final = 1_000
BALANCES_PER_BATCH: Final = 2_000
CACHED_NAMES: Final = 100_000

_SELECT_OPENING_EVENTS: Final = """
    SELECT uuid_send(originator_id), topic, state FROM ledger.events
    WHERE originator_id = ANY(%s) AND originator_version = 1
"""
_SELECT_PROJECTED_POSITION: Final = (
    "SELECT \"position\" FROM projections.positions WHERE projection = 'balance'"
)
_SELECT_CHANGED_BALANCES: Final = """
    SELECT organisation_id, balance, on_hold, "position" FROM projections.balances
    WHERE stream IN (
        SELECT originator_id FROM ledger.events WHERE notification_id > %s AND notification_id <= %s
    )
"""
_SELECT_BALANCES_PAGE: Final = """
    SELECT stream, organisation_id, balance, on_hold, "position" FROM projections.balances
    WHERE stream > %s ORDER BY stream LIMIT %s
"""


class PublishBatch(msgspec.Struct, frozen=True):
    """Messages in lazily read batches. After all of them, the checkpoint of the topic is `position`."""

    batches: Iterator[Sequence[Message]]
    position: int


class Feed(Protocol):
    """A topic, and its messages for ranges of the log."""

    @property
    def topic(self) -> str: ...

    @property
    def content_type(self) -> str:
        """The `content-type` header of its records."""

    @property
    def is_compacted(self) -> bool:
        """Whether the topic is compacted: a record out of order would then replace a newer one."""

    def end_position(self, connection: Connection) -> int:
        """Return the log position up to which the feed can read."""

    def read_after(self, connection: Connection, position: int, up_to: int) -> PublishBatch:
        """Return the next messages after a position, at most to `up_to`, a result of `end_position`.

        Raises:
            UnknownEventType: the log was written by a newer version of the ledger.
        """


class EventFeed:
    """All events of the log, in log order, as CloudEvents."""

    content_type = "application/cloudevents+json"
    is_compacted = False

    def __init__(self, topic: str, batch_size: int = EVENTS_PER_BATCH) -> None:
        self.topic = topic
        self._batch_size = batch_size
        self._codec = EventCodec()
        self._names: dict[bytes, str] = {}

    def end_position(self, connection: Connection) -> int:
        return log_end(connection)

    def read_after(self, connection: Connection, position: int, up_to: int) -> PublishBatch:
        batch = EventLog(connection, self._codec).read(position, up_to, self._batch_size)
        names = self._names_of(
            connection,
            {stream for _, stream, _, event in batch.entries if type(event) in ORGANISATION_EVENT_CLASSES},
        )
        messages = []
        for log_position, stream, version, event in batch.entries:
            name = names.get(stream) or _organisation_of(event)
            value = public_event(name, str(UUID(bytes=stream)), version, log_position, event)
            messages.append((name.encode(), value))
        return PublishBatch(iter([messages]), batch.position)

    def _names_of(self, connection: Connection, streams: set[bytes]) -> dict[bytes, str]:
        """Return the ids of organisations by stream. They are in the first event of a stream."""
        if len(self._names) > CACHED_NAMES:
            self._names.clear()
        unknown = [UUID(bytes=stream) for stream in streams if stream not in self._names]
        if unknown:
            cursor = connection.cursor(row_factory=tuple_row)
            for stream, topic, state in cursor.execute(_SELECT_OPENING_EVENTS, (unknown,), binary=True):
                opened = self._codec.decode(topic, state)
                if not isinstance(opened, OrganisationOpened):
                    raise InvariantViolation(
                        f"the stream {stream.hex()} does not begin with OrganisationOpened"
                    )
                self._names[stream] = opened.organisation_id
        return self._names


class BalanceFeed:
    """The latest balance of every organisation with new events, as far as the projection `balance` has read.

    From position 0 these are all organisations, read from the projection's rows instead of the log.
    """

    content_type = "application/json"
    is_compacted = True

    def __init__(self, topic: str, batch_size: int = BALANCES_PER_BATCH) -> None:
        self.topic = topic
        self._batch_size = batch_size

    def end_position(self, connection: Connection) -> int:
        row = connection.cursor(row_factory=tuple_row).execute(_SELECT_PROJECTED_POSITION).fetchone()
        return 0 if row is None else int(row[0])

    def read_after(self, connection: Connection, position: int, up_to: int) -> PublishBatch:
        if position == 0:
            return PublishBatch(self._all_balances(connection), up_to)
        to = min(up_to, position + self._batch_size)
        cursor = connection.cursor(row_factory=tuple_row)
        # A generic plan of a prepared statement would scan all balances for the few of this range.
        rows = cursor.execute(_SELECT_CHANGED_BALANCES, (position, to), prepare=False).fetchall()
        return PublishBatch(iter([[_message(*row) for row in rows]]), to)

    def _all_balances(self, connection: Connection) -> Iterator[Sequence[Message]]:
        cursor = connection.cursor(row_factory=tuple_row)
        last = UUID(int=0)
        while rows := cursor.execute(_SELECT_BALANCES_PAGE, (last, self._batch_size)).fetchall():
            last = rows[-1][0]
            yield [_message(*row[1:]) for row in rows]


def _organisation_of(event: Any) -> str:
    """Return the organisation of an event of another aggregate."""
    name: str = event.organisation_id
    return name


def _message(organisation_id: str, balance: int, on_hold: int, position: int) -> Message:
    return organisation_id.encode(), public_balance(organisation_id, balance, on_hold, position)
