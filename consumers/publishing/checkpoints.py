"""Checkpoints of the publisher: the published log position of each topic, moved by compare-and-set.

A checkpoint belongs to one incarnation of a topic: it is stored with the broker's id of the topic, and a
recreated topic starts at position 0. Connections are in autocommit mode.
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
_REWIND: Final = """
    UPDATE ledger.publisher_positions SET "position" = %s, updated_at = now()
    WHERE topic = %s AND "position" > %s
"""


class Checkpoint(msgspec.Struct, frozen=True):
    """The log position up to which the broker has acknowledged all records of a topic."""

    topic_id: str
    position: int


def load(connection: Connection, topic: str) -> Checkpoint | None:
    """Return the checkpoint of a topic, or None if it has none."""
    row = connection.cursor(row_factory=tuple_row).execute(_SELECT, (topic,)).fetchone()
    return None if row is None else Checkpoint(*row)


def start(connection: Connection, topic: str, topic_id: str, expected: Checkpoint | None) -> Checkpoint:
    """Start a new incarnation of a topic at position 0, replacing the expected checkpoint.

    Raises:
        CheckpointConflict: another publisher changed the checkpoint.
    """
    if expected is None:
        cursor = connection.execute(_INSERT, (topic, topic_id))
    else:
        cursor = connection.execute(_REPLACE, (topic_id, 0, topic, expected.topic_id, expected.position))
    _expect_one(cursor, topic)
    return Checkpoint(topic_id, 0)


def advance(connection: Connection, topic: str, expected: Checkpoint, to: int) -> Checkpoint:
    """Advance the checkpoint of a topic, if it still equals the expected one.

    Raises:
        CheckpointConflict: another publisher changed the checkpoint.
    """
    _expect_one(
        connection.execute(_REPLACE, (expected.topic_id, to, topic, expected.topic_id, expected.position)),
        topic,
    )
    return Checkpoint(expected.topic_id, to)


def rewind(connection: Connection, topic: str, to: int) -> None:
    """Move the checkpoint back, so that the current leader publishes everything after the position again."""
    connection.execute(_REWIND, (to, topic, to))


def _expect_one(cursor: psycopg.Cursor[Any], topic: str) -> None:
    if cursor.rowcount != 1:
        raise CheckpointConflict(f"another publisher has moved the checkpoint of {topic}")
