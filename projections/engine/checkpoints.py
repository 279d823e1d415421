"""Checkpoints of projections, moved by compare-and-set in the transaction that writes the rows.

A runner may write only if the stored position and generation are those it has read. If two runners, or a
runner and a rebuild, work on one projection, the later one finds another position and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from psycopg.rows import tuple_row

from projections.connection import Connection
from projections.engine.errors import ProjectionCheckpointConflict

# Always in the same order, so that two transactions wait for each other instead of deadlocking.
_SELECT: Final = """
    SELECT projection, "position", generation FROM positions
    WHERE projection = ANY(%s) ORDER BY projection COLLATE "C"
"""


class Checkpoint(msgspec.Struct, frozen=True, order=True):
    """A projection's position in the log; a rebuild starts a new generation."""

    projection: str
    position: int
    generation: int


def load_checkpoints(connection: Connection, projections: Sequence[str]) -> list[Checkpoint]:
    """Return the checkpoints of projections. Those that never ran get one at the beginning of the log."""
    connection.execute(
        'INSERT INTO positions (projection, "position", generation)'
        " SELECT name, 0, 1 FROM unnest(%s::text[]) AS name ON CONFLICT DO NOTHING",
        [list(projections)],
    )
    return _checkpoints(connection, _SELECT, projections)


def read_checkpoints(connection: Connection, projections: Sequence[str]) -> list[Checkpoint]:
    """Return the checkpoints of projections, without those that never ran."""
    return _checkpoints(connection, _SELECT, projections)


def lock_checkpoints(connection: Connection, projections: Sequence[str]) -> list[Checkpoint]:
    """Return the checkpoints of projections, and lock them until the commit."""
    return _checkpoints(connection, _SELECT + " FOR UPDATE", projections)


def lock_expected(connection: Connection, expected: Sequence[Checkpoint]) -> None:
    """Lock the checkpoints of projections, which must be the expected ones.

    Raises:
        ProjectionCheckpointConflict: a checkpoint has another position or another generation.
    """
    found = lock_checkpoints(connection, [checkpoint.projection for checkpoint in expected])
    if found != sorted(expected):
        raise ProjectionCheckpointConflict(f"expected {list(expected)}, found {found}")


def advance(connection: Connection, projections: Sequence[str], to: int) -> None:
    """Set the checkpoint of projections whose rows are locked by `lock_expected`."""
    connection.execute(
        'UPDATE positions SET "position" = %s, updated_at = clock_timestamp() WHERE projection = ANY(%s)',
        [to, list(projections)],
    )


def _checkpoints(connection: Connection, select: str, projections: Sequence[str]) -> list[Checkpoint]:
    rows = connection.cursor(row_factory=tuple_row).execute(select, [list(projections)])
    return [Checkpoint(*row) for row in rows]
