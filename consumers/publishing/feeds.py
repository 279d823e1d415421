"""What is to be said on each topic: every event, and the latest state of whom the events touched."""

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
    """Messages in batches, read as they are asked for; with all of them a topic is at `position`."""

    batches: Iterator[Sequence[Message]]
    position: int


class Feed(Protocol):
    """A topic, and what the log means for it."""

    @property
    def topic(self) -> str: ...

    @property
    def content_type(self) -> str:
        """What a record's `content-type` header says."""

    @property
    def is_compacted(self) -> bool:
        """Readers keep the latest record of a key alone: one sent out of turn would hide a newer one."""

    def end_position(self, connection: Connection) -> int:
        """Return the position up to which there is something to say, or may be."""

    def read_after(self, connection: Connection, position: int, up_to: int) -> PublishBatch:
        """Return the next messages above a position below `up_to`, which `end` has given.

        Raises:
            UnknownEventType: the log was written by a newer version of the ledger.
        """


class EventFeed:
    """Every event of the log, in its order, as a CloudEvent."""

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
        for at, stream, version, event in batch.entries:
            name = names.get(stream) or _organisation_of(event)
            value = public_event(name, str(UUID(bytes=stream)), version, at, event)
            messages.append((name.encode(), value))
        return PublishBatch(iter([messages]), batch.position)

    def _names_of(self, connection: Connection, streams: set[bytes]) -> dict[bytes, str]:
        """Return the organisations' ids, which their first events tell."""
        if len(self._names) > CACHED_NAMES:
            self._names.clear()
        unknown = [UUID(bytes=stream) for stream in streams if stream not in self._names]
        if unknown:
            cursor = connection.cursor(row_factory=tuple_row)
            for stream, topic, state in cursor.execute(_SELECT_OPENING_EVENTS, (unknown,), binary=True):
                opened = self._codec.decode(topic, state)
                if not isinstance(opened, OrganisationOpened):
                    raise InvariantViolation(f"the stream {stream.hex()} does not begin with its opening")
                self._names[stream] = opened.organisation_id
        return self._names


class BalanceFeed:
    """The latest state of every organisation that the log touched, once the projection `balance` has it.

    At the log's beginning this is every organisation there is, read from the rows instead of the log.
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
        # A plan kept for any range would scan the balances of all organisations for the few of this one.
        rows = cursor.execute(_SELECT_CHANGED_BALANCES, (position, to), prepare=False).fetchall()
        return PublishBatch(iter([[_message(*row) for row in rows]]), to)

    def _all_balances(self, connection: Connection) -> Iterator[Sequence[Message]]:
        cursor = connection.cursor(row_factory=tuple_row)
        last = UUID(int=0)
        while rows := cursor.execute(_SELECT_BALANCES_PAGE, (last, self._batch_size)).fetchall():
            last = rows[-1][0]
            yield [_message(*row[1:]) for row in rows]


def _organisation_of(event: Any) -> str:
    """Return the organisation that a fact of another aggregate is about."""
    name: str = event.organisation_id
    return name


def _message(organisation_id: str, balance: int, on_hold: int, position: int) -> Message:
    return organisation_id.encode(), public_balance(organisation_id, balance, on_hold, position)
