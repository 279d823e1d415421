"""Commits rows outside the log in the same transaction as events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection

from domain.credits.ledger import Ledger
from infra.event_store.recorder import event_store_of


@contextmanager
def shared_transaction(ledger: Ledger) -> Iterator[Connection[Any]]:
    """Context manager that yields the connection of one transaction.

    Commands of the ledger inside it and statements on the connection commit together or not at all. The
    transaction holds the write lock, so use it only for rare operations.

    Raises:
        StoreUnavailable: the database cannot be reached, or the lock took too long.
    """
    store = event_store_of(ledger)
    with store.exclusive(), store.recorder.datastore.get_connection() as connection:
        yield connection
