"""Connections of the writers: one for each purpose, replaced after any error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psycopg
from psycopg.rows import TupleRow, tuple_row

from infra.event_store.datastore import (
    IDLE_IN_TRANSACTION_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    as_store_errors,
    with_keepalives,
)

Connection = psycopg.Connection[TupleRow]

SESSION: Final = f"""
    SET lock_timeout = '{LOCK_TIMEOUT_S}s';
    SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT_S}s';
    -- Every query here touches a few keys of huge tables: the index is right whatever statistics say.
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off
"""


class StoreConnections:
    """Used by one thread."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._by_purpose: dict[str, Connection] = {}

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        for connection in self._by_purpose.values():
            connection.close()
        self._by_purpose.clear()

    @contextmanager
    def use(self, purpose: str) -> Iterator[Connection]:
        """Yield a connection. After any error it is replaced, because its state is unknown.

        Raises:
            StoreUnavailable: the database cannot be reached, or a lock took too long.
            VersionConflict, DuplicateKey: a statement met rows of another writer.
        """
        with as_store_errors():
            connection = self._by_purpose.get(purpose) or self._connect(purpose)
            try:
                yield connection
            except BaseException:
                self.discard(connection)
                raise

    def discard(self, connection: Connection) -> None:
        """Close a connection whose state is unknown: the server rolls back what it had open."""
        for purpose, held in list(self._by_purpose.items()):
            if held is connection:
                del self._by_purpose[purpose]
        with suppress(psycopg.Error):
            connection.close()

    def _connect(self, purpose: str) -> Connection:
        connection = psycopg.connect(with_keepalives(self._conninfo), autocommit=True, row_factory=tuple_row)
        try:
            connection.execute(SESSION)
        except BaseException:
            connection.close()
            raise
        self._by_purpose[purpose] = connection
        return connection
