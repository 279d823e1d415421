"""Stored Kafka positions: read when a partition is assigned, written when its log starts or is replaced."""

from __future__ import annotations

from typing import Final

from consumers.usage.positions import StoredPosition
from domain.shared.errors import CheckpointConflict
from infra.event_store.datastore import LedgerDatastore

_SELECT: Final = """
    SELECT partition, topic_id, next_offset, last_record_digest FROM ledger.consumer_positions
    WHERE topic = %s
"""
_INSERT: Final = """
    INSERT INTO ledger.consumer_positions (topic, partition, topic_id, next_offset)
    VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_REPLACE: Final = """
    UPDATE ledger.consumer_positions
    SET topic_id = %s, next_offset = %s, last_record_digest = NULL, updated_at = now()
    WHERE topic = %s AND partition = %s AND topic_id = %s AND next_offset = %s
"""


class PostgresKafkaPositions:
    """Implements `consumers.usage.positions.PositionStore` on PostgreSQL."""

    def __init__(self, datastore: LedgerDatastore) -> None:
        self._datastore = datastore

    def positions(self, topic: str) -> dict[int, StoredPosition]:
        with self._datastore.get_connection() as connection:
            return {
                row["partition"]: StoredPosition(
                    row["topic_id"], row["next_offset"], row["last_record_digest"]
                )
                for row in connection.execute(_SELECT, (topic,))
            }

    def start_log(
        self, topic: str, partition: int, topic_id: str, offset: int, replaces: StoredPosition | None
    ) -> None:
        with self._datastore.get_connection() as connection:
            if replaces is None:
                result = connection.execute(_INSERT, (topic, partition, topic_id, offset))
            else:
                seen = (topic, partition, replaces.topic_id, replaces.next_offset)
                result = connection.execute(_REPLACE, (topic_id, offset, *seen))
            if result.rowcount != 1:
                raise CheckpointConflict(f"another consumer has moved the position of {topic}/{partition}")
