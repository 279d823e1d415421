"""How far the log was published on each topic, moved by compare-and-set.

A position belongs to one incarnation of a topic: it stands beside the broker's id of that topic, and a topic
made anew begins at 0. Connections are in autocommit.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import psycopg
from psycopg.rows import tuple_row

from domain.shared.errors import CheckpointConflict
from projections.connection import Connection

_SELECT: Final = 'SELECT topic_id, "position" FROM ledger.publisher_positions WHERE topic = %s'
_INSERT: Final = """
    INSERT INTO ledger.publisher_positions (topic, topic_id, "position") VALUES (%s, %s, 0)
    ON CONFLICT DO NOTHING
"""
_REPLACE: Final = """
    UPDATE ledger.publisher_positions SET topic_id = %s, "position" = %s, updated_at = now()
    WHERE topic = %s AND topic_id = %s AND "position" = %s
"""
_MOVE_BACK: Final = """
    UPDATE ledger.publisher_positions SET "position" = %s, updated_at = now()
    WHERE topic = %s AND "position" > %s
"""


class Checkpoint(msgspec.Struct, frozen=True):
    """The last position of the log that a topic's broker has acknowledged, with all before it."""

    topic_id: str
    position: int


def load(connection: Connection, topic: str) -> Checkpoint | None:
    """Return how far a topic is, None if nothing was ever published there."""
    row = connection.cursor(row_factory=tuple_row).execute(_SELECT, (topic,)).fetchone()
    return None if row is None else Checkpoint(*row)


def start(connection: Connection, topic: str, topic_id: str, expected: Checkpoint | None) -> Checkpoint:
    """Begin an incarnation of a topic, in place of what was seen before.

    Raises:
        CheckpointConflict: another publisher was here meanwhile.
    """
    if expected is None:
        done = connection.execute(_INSERT, (topic, topic_id))
    else:
        done = connection.execute(_REPLACE, (topic_id, 0, topic, expected.topic_id, expected.position))
    _expect_one(done, topic)
    return Checkpoint(topic_id, 0)


def advance(connection: Connection, topic: str, expected: Checkpoint, to: int) -> Checkpoint:
    """Move a topic on, if it still stands where it was seen.

    Raises:
        CheckpointConflict: another publisher was here meanwhile.
    """
    _expect_one(
        connection.execute(_REPLACE, (expected.topic_id, to, topic, expected.topic_id, expected.position)),
        topic,
    )
    return Checkpoint(expected.topic_id, to)


def rewind(connection: Connection, topic: str, to: int) -> None:
    """Have everything after a position published again, by whoever publishes now."""
    connection.execute(_MOVE_BACK, (to, topic, to))


def _expect_one(done: psycopg.Cursor[Any], topic: str) -> None:
    if done.rowcount != 1:
        raise CheckpointConflict(f"another publisher has moved the position of {topic}")
