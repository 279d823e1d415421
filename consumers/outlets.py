"""What is to be said on each topic: every event, and the latest state of whom the events touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import tuple_row

from consumers.public_balances import public_balance
from consumers.public_events import public_event
from domain.catalogue import ORGANISATION_FACTS, FactCodec
from domain.errors import InvariantBroken
from domain.facts import OrganisationOpened
from projections.log import Log, log_end

Connection = psycopg.Connection[Any]

Message = tuple[bytes, bytes]
"""Key (the organisation's id) and value of a record."""

EVENTS_A_BATCH: Final = 1_000
BALANCES_A_BATCH: Final = 2_000
NAMES_KEPT: Final = 100_000

_OPENINGS: Final = """
    SELECT uuid_send(originator_id), topic, state FROM ledger.events
    WHERE originator_id = ANY(%s) AND originator_version = 1
"""
_PROJECTED: Final = "SELECT \"position\" FROM projections.positions WHERE projection = 'balance'"
_TOUCHED: Final = """
    SELECT organisation_id, balance, on_hold, "position" FROM projections.balances
    WHERE stream IN (
        SELECT originator_id FROM ledger.events WHERE notification_id > %s AND notification_id <= %s
    )
"""
_PAGE: Final = """
    SELECT stream, organisation_id, balance, on_hold, "position" FROM projections.balances
    WHERE stream > %s ORDER BY stream LIMIT %s
"""


class Portion(msgspec.Struct, frozen=True):
    """Messages in batches, read as they are asked for; with all of them a topic is at `position`."""

    batches: Iterator[Sequence[Message]]
    position: int


class Outlet(Protocol):
    """A topic, and what the log means for it."""

    @property
    def topic(self) -> str: ...

    @property
    def content_type(self) -> str:
        """What a record's `content-type` header says."""

    @property
    def keeps_latest(self) -> bool:
        """Readers keep the latest record of a key alone: one sent out of turn would hide a newer one."""

    def end(self, connection: Connection) -> int:
        """Return the position up to which there is something to say, or may be."""

    def after(self, connection: Connection, position: int, up_to: int) -> Portion:
        """Return the next messages above a position below `up_to`, which `end` has given.

        Raises:
            UnknownEventType: the log was written by a newer version of the ledger.
        """


class EventsOutlet:
    """Every event of the log, in its order, as a CloudEvent."""

    content_type = "application/cloudevents+json"
    keeps_latest = False

    def __init__(self, topic: str, batch_size: int = EVENTS_A_BATCH) -> None:
        self.topic = topic
        self._batch_size = batch_size
        self._codec = FactCodec()
        self._names: dict[bytes, str] = {}

    def end(self, connection: Connection) -> int:
        return log_end(connection)

    def after(self, connection: Connection, position: int, up_to: int) -> Portion:
        batch = Log(connection, self._codec).read(position, up_to, self._batch_size)
        names = self._names_of(
            connection, {stream for _, stream, _, fact in batch.entries if type(fact) in ORGANISATION_FACTS}
        )
        messages = []
        for at, stream, version, fact in batch.entries:
            name = names.get(stream) or _owner(fact)
            value = public_event(name, str(UUID(bytes=stream)), version, at, fact)
            messages.append((name.encode(), value))
        return Portion(iter([messages]), batch.position)

    def _names_of(self, connection: Connection, streams: set[bytes]) -> dict[bytes, str]:
        """Return the organisations' ids, which their first events tell."""
        if len(self._names) > NAMES_KEPT:
            self._names.clear()
        unknown = [UUID(bytes=stream) for stream in streams if stream not in self._names]
        if unknown:
            cursor = connection.cursor(row_factory=tuple_row)
            for stream, topic, state in cursor.execute(_OPENINGS, (unknown,), binary=True):
                opened = self._codec.decode(topic, state)
                if not isinstance(opened, OrganisationOpened):
                    raise InvariantBroken(f"the stream {stream.hex()} does not begin with its opening")
                self._names[stream] = opened.organisation_id
        return self._names


class BalancesOutlet:
    """The latest state of every organisation that the log touched, once the projection `balance` has it.

    At the log's beginning this is every organisation there is, read from the rows instead of the log.
    """

    content_type = "application/json"
    keeps_latest = True

    def __init__(self, topic: str, batch_size: int = BALANCES_A_BATCH) -> None:
        self.topic = topic
        self._batch_size = batch_size

    def end(self, connection: Connection) -> int:
        row = connection.cursor(row_factory=tuple_row).execute(_PROJECTED).fetchone()
        return 0 if row is None else int(row[0])

    def after(self, connection: Connection, position: int, up_to: int) -> Portion:
        if position == 0:
            return Portion(self._everybody(connection), up_to)
        to = min(up_to, position + self._batch_size)
        cursor = connection.cursor(row_factory=tuple_row)
        # A plan kept for any range would scan the balances of all organisations for the few of this one.
        rows = cursor.execute(_TOUCHED, (position, to), prepare=False).fetchall()
        return Portion(iter([[_message(*row) for row in rows]]), to)

    def _everybody(self, connection: Connection) -> Iterator[Sequence[Message]]:
        cursor = connection.cursor(row_factory=tuple_row)
        last = UUID(int=0)
        while rows := cursor.execute(_PAGE, (last, self._batch_size)).fetchall():
            last = rows[-1][0]
            yield [_message(*row[1:]) for row in rows]


def _owner(fact: Any) -> str:
    """Return the organisation that a fact of another aggregate is about."""
    name: str = fact.organisation_id
    return name


def _message(organisation_id: str, balance: int, on_hold: int, position: int) -> Message:
    return organisation_id.encode(), public_balance(organisation_id, balance, on_hold, position)
