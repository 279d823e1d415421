"""Reads the log, `ledger.events`, in the order of its notification ids.

Ids commit in order, and rolled-back writers leave gaps. So no event below the last id read can appear later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from psycopg.rows import tuple_row

from domain.event_catalogue import EventCodec
from domain.shared.aggregate import DomainEvent
from domain.shared.errors import UnknownEventType
from projections.connection import Connection

LogEntry = tuple[int, bytes, int, DomainEvent]
"""Notification id, stream (the 16 bytes of its UUID), version, event: a plain tuple, for speed."""

_READ: Final = """
    SELECT notification_id, uuid_send(originator_id), originator_version, topic, state
    FROM ledger.events
    WHERE notification_id > %s AND notification_id <= %s
    ORDER BY notification_id LIMIT %s
"""


class LogBatch(msgspec.Struct, frozen=True):
    """Entries of the log. It was read up to `position`, which is at or after the last entry."""

    entries: list[LogEntry]
    position: int


class EventLog:
    """The log, read through a connection in autocommit."""

    def __init__(self, connection: Connection, codec: EventCodec) -> None:
        self._connection = connection
        self._cursor = connection.cursor(row_factory=tuple_row)
        self._decoders = dict(codec.decoders)

    def read(self, after: int, up_to: int, batch_size: int) -> LogBatch:
        """Return at most `batch_size` entries after `after`, up to `up_to`, which the log must have reached.

        Raises:
            UnknownEventType: an entry was written by a newer version of the ledger.
        """
        self._cursor.execute(_READ, (after, up_to, batch_size), prepare=True, binary=True)
        rows = self._cursor.fetchall()
        decoders: dict[str, Callable[[bytes], DomainEvent]] = self._decoders
        try:
            entries = [
                (position, stream, version, decoders[topic](state))
                for position, stream, version, topic, state in rows
            ]
        except KeyError as error:
            raise UnknownEventType(f"the log has the unknown topic {error}", topic=error.args[0]) from error
        return LogBatch(entries, rows[-1][0] if len(rows) == batch_size else up_to)

    def end(self) -> int:
        """Return the last notification id, or 0 if the log is empty."""
        return log_end(self._connection)


def log_end(connection: Connection) -> int:
    """Return the last notification id that the connection sees, or 0 if the log is empty."""
    cursor = connection.cursor(row_factory=tuple_row)
    row = cursor.execute("SELECT coalesce(max(notification_id), 0) FROM ledger.events").fetchone()
    assert row is not None
    return int(row[0])


def wait_for_events(connection: Connection, timeout_s: float) -> None:
    """Wait for a notification on a listening connection, or for the time-out if none arrives."""
    for _ in connection.notifies(timeout=timeout_s, stop_after=1):
        pass
