"""Shadow tables: empty copies of the live tables. A rebuild swaps them in; a comparison drops them.

Both use one schema and one lock, so only one of them runs in a database at a time. Each first drops the
tables of an interrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import psycopg
from psycopg import sql

from projections.connection import Connection
from projections.engine.errors import RebuildConflict
from projections.engine.projection import Projection
from projections.engine.projector import LIVE_SCHEMA
from projections.engine.table_swap import clone_table

SHADOW_SCHEMA: Final = "projections_next"

_LOCK: Final = 0x4C454447_52454255  # "LEDGREBU"


@contextmanager
def rebuild_lock(connection: Connection) -> Iterator[None]:
    """Hold the lock on the schema. If the process dies, the server releases it.

    Raises:
        RebuildConflict: a rebuild or a comparison is running.
    """
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
    if row is None or not row[0]:
        raise RebuildConflict("another rebuild or comparison of this database is running")
    try:
        yield
    finally:
        # The server notices a closed connection a moment later; the next caller may come sooner.
        with suppress(psycopg.Error):
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def create_shadow_tables(
    connection: Connection, projections: Sequence[Projection], *, unlogged: bool = False
) -> None:
    """Create empty tables for projections, and for their positions, in a new schema.

    Raises:
        psycopg.errors.InsufficientPrivilege: the role does not own the live tables.
    """
    with connection.transaction():
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SHADOW_SCHEMA)))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SHADOW_SCHEMA)))
        for table in ("positions", *tables_of(projections)):
            clone_table(
                connection, table, from_schema=LIVE_SCHEMA, to_schema=SHADOW_SCHEMA, unlogged=unlogged
            )


def tables_of(projections: Sequence[Projection]) -> list[str]:
    """Return the names of the tables that projections fill."""
    return [table for projection in projections for table in projection.tables]


def analyze(connection: Connection, projections: Sequence[Projection]) -> None:
    """Give the planner statistics before the first read."""
    for table in tables_of(projections):
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(SHADOW_SCHEMA, table)))


def drop_shadow_schema(connection: Connection) -> None:
    """Drop the schema with all its tables."""
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SHADOW_SCHEMA)))
