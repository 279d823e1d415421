"""Reads all rows for an audit, with few of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from psycopg.rows import tuple_row

from projections.connection import Connection

_CURSOR_PAGE_ROWS: Final = 5_000
T = TypeVar("T")


def stream_rows(
    connection: Connection, name: str, query: str, values: Sequence[Any] | None = None
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query through a server-side cursor. No other open cursor may have the same name.

    Takes a connection in a transaction.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    with connection.cursor(name, row_factory=tuple_row) as cursor:
        cursor.itersize = _CURSOR_PAGE_ROWS
        cursor.execute(query, values)
        yield from cursor


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield items in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
