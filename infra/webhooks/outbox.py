"""Makes deliveries of what the log tells: once each, however often the process is killed.

The position in the log and the deliveries move in one transaction, whose lock on the position keeps a second
process out meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from psycopg.rows import tuple_row

from consumers.publishing.webhook_messages import WebhookMessage, event_message
from domain.event_catalogue import EventCodec
from domain.webhooks.endpoints import WEBHOOK_EVENTS
from projections.connection import Connection
from projections.engine.event_log import log_end

READER: Final = "webhooks"
POSITIONS_AT_ONCE: Final = 20_000

_CHECKPOINT: Final = 'SELECT "position" FROM ledger.log_readers WHERE reader = %s FOR UPDATE'
_MOVE: Final = 'UPDATE ledger.log_readers SET "position" = %s, updated_at = now() WHERE reader = %s'
# Materialized: the log is read by its positions, not by the whole histories of who has endpoints. The lock
# keeps an endpoint from being removed before its deliveries are written.
_TOLD: Final = """
    WITH told AS MATERIALIZED (
        SELECT notification_id, originator_id, originator_version, topic, state FROM ledger.events
        WHERE notification_id > %s AND notification_id <= %s AND topic = ANY(%s)
    )
    SELECT endpoint_id, organisation_id, originator_id::text, originator_version, notification_id,
        topic, state
    FROM told JOIN ledger.webhook_endpoints ON stream = originator_id
    WHERE disabled_at IS NULL AND since_position < notification_id
    ORDER BY notification_id, endpoint_id
    FOR KEY SHARE OF webhook_endpoints
"""
_QUEUE: Final = """
    INSERT INTO ledger.webhook_deliveries (endpoint_id, message_id, type, body, created_at, next_attempt_at)
    VALUES (%s, %s, %s, %s, %s, %s)
"""


class Outbox:
    """The deliveries that the log asks for. Connections are in autocommit mode."""

    def __init__(self) -> None:
        self._codec = EventCodec()
        self._topics = [self._codec.topic_of[event] for event in WEBHOOK_EVENTS]

    def fill(self, connection: Connection, now: datetime) -> int:
        """Read the log a way on; return how many positions are still ahead.

        Raises:
            psycopg.OperationalError: the database was lost; nothing was written.
        """
        with connection.transaction():
            cursor = connection.cursor(row_factory=tuple_row)
            row = cursor.execute(_CHECKPOINT, [READER]).fetchone()
            assert row is not None
            end = log_end(connection)
            up_to = min(end, row[0] + POSITIONS_AT_ONCE)
            if up_to > row[0]:
                # A plan kept for any range would read the whole log.
                cursor.execute(_TOLD, [row[0], up_to, self._topics], prepare=False)
                insert_deliveries(connection, [self._message(*told) for told in cursor.fetchall()], now)
                connection.execute(_MOVE, [up_to, READER])
        return int(end - up_to)

    def _message(self, *told: Any) -> tuple[str, WebhookMessage]:
        endpoint_id, organisation_id, stream, version, position, topic, state = told
        event = self._codec.decode(topic, state)
        return endpoint_id, event_message(organisation_id, stream, version, position, event)


def insert_deliveries(
    connection: Connection, messages: Sequence[tuple[str, WebhookMessage]], now: datetime
) -> None:
    """Have messages delivered, each to the endpoint it comes with, in this order."""
    if messages:
        connection.cursor().executemany(
            _QUEUE, [(to, each.message_id, each.type, each.body, now, now) for to, each in messages]
        )
