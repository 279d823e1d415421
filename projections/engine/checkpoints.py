"""Where each projection stands, moved by compare-and-set in the transaction that writes its rows.

A runner may write only what follows the position and generation it has seen. Of two runners on one
projection, or a runner and a rebuild, the later one finds another position and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from psycopg.rows import tuple_row

from projections.connection import Connection
from projections.engine.errors import ProjectionCheckpointConflict

# In one order everywhere, so that two lockers wait for each other instead of deadlocking.
_SELECT: Final = """
    SELECT projection, "position", generation FROM positions
    WHERE projection = ANY(%s) ORDER BY projection COLLATE "C"
"""


class Checkpoint(msgspec.Struct, frozen=True, order=True):
    """A projection's place in the log; a rebuild makes a new generation."""

    projection: str
    position: int
    generation: int


def load_checkpoints(connection: Connection, projections: Sequence[str]) -> list[Checkpoint]:
    """Return where projections stand, making those that never ran stand at the log's beginning."""
    connection.execute(
        'INSERT INTO positions (projection, "position", generation)'
        " SELECT name, 0, 1 FROM unnest(%s::text[]) AS name ON CONFLICT DO NOTHING",
        [list(projections)],
    )
    return _checkpoints(connection, _SELECT, projections)


def read_checkpoints(connection: Connection, projections: Sequence[str]) -> list[Checkpoint]:
    """Return where projections stand, without those that never ran."""
    return _checkpoints(connection, _SELECT, projections)


def lock_checkpoints(connection: Connection, projections: Sequence[str]) -> list[Checkpoint]:
    """Return where projections stand, and keep everyone else from moving them until the commit."""
    return _checkpoints(connection, _SELECT + " FOR UPDATE", projections)


def lock_expected(connection: Connection, expected: Sequence[Checkpoint]) -> None:
    """Lock projections where they are expected to stand.

    Raises:
        ProjectionCheckpointConflict: one stands somewhere else, or is of another generation.
    """
    found = lock_checkpoints(connection, [checkpoint.projection for checkpoint in expected])
    if found != sorted(expected):
        raise ProjectionCheckpointConflict(f"expected {list(expected)}, found {found}")


def advance(connection: Connection, projections: Sequence[str], to: int) -> None:
    """Move projections that are held."""
    connection.execute(
        'UPDATE positions SET "position" = %s, updated_at = clock_timestamp() WHERE projection = ANY(%s)',
        [to, list(projections)],
    )


def _checkpoints(connection: Connection, select: str, projections: Sequence[str]) -> list[Checkpoint]:
    rows = connection.cursor(row_factory=tuple_row).execute(select, [list(projections)])
    return [Checkpoint(*row) for row in rows]
