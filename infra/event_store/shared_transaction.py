"""Rows beside the events: what is kept outside the log commits with the facts that tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection

from domain.credits.ledger import Ledger
from infra.event_store.recorder import event_store_of


@contextmanager
def shared_transaction(ledger: Ledger) -> Iterator[Connection[Any]]:
    """Lend the connection of one transaction: commands of the ledger inside it commit with what is written
    on the connection, or nothing of both does. It holds the write lock, so it is for what happens seldom.

    Raises:
        StoreUnavailable: the database cannot be reached, or the lock took too long.
    """
    store = event_store_of(ledger)
    with store.exclusive(), store.recorder.datastore.get_connection() as connection:
        yield connection
