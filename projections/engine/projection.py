"""The projection protocol: a fold of the log into rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from projections.connection import Connection
from projections.engine.event_log import LogEntry


class Changes(Protocol):
    """What a batch changes in a projection's tables."""

    def write(self, connection: Connection) -> None:
        """Write the changes to the tables, in the transaction that also moves the position.

        Tables are named without a schema: the connection's search path decides between the tables in
        use and those that a rebuild is filling.
        """


class Projection(Protocol):
    """A fold of the log into tables. It keeps no state between batches."""

    @property
    def name(self) -> str:
        """The name its position is stored under."""

    @property
    def tables(self) -> Sequence[str]:
        """The tables it fills. No other projection writes to them."""

    def fold(self, entries: Sequence[LogEntry]) -> Changes:
        """Return the changes of log entries, without access to the database."""
