"""Creates deliveries from the log: exactly one per event and endpoint, even if the process is killed.

The position in the log and the deliveries are written in one transaction. Its lock on the position excludes
other processes.
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
BATCH_POSITIONS_MAX: Final = 20_000

_CHECKPOINT: Final = 'SELECT "position" FROM ledger.log_readers WHERE reader = %s FOR UPDATE'
_MOVE: Final = 'UPDATE ledger.log_readers SET "position" = %s, updated_at = now() WHERE reader = %s'
# MATERIALIZED makes PostgreSQL read the log by position, not by the streams of the endpoints. The lock
# prevents the removal of an endpoint before its deliveries are written.
_SELECT_NEW: Final = """
    WITH new AS MATERIALIZED (
        SELECT notification_id, originator_id, originator_version, topic, state FROM ledger.events
        WHERE notification_id > %s AND notification_id <= %s AND topic = ANY(%s)
    )
    SELECT endpoint_id, organisation_id, originator_id::text, originator_version, notification_id,
        topic, state
    FROM new JOIN ledger.webhook_endpoints ON stream = originator_id
    WHERE disabled_at IS NULL AND since_position < notification_id
    ORDER BY notification_id, endpoint_id
    FOR KEY SHARE OF webhook_endpoints
"""
_QUEUE: Final = """
    INSERT INTO ledger.webhook_deliveries (endpoint_id, message_id, type, body, created_at, next_attempt_at)
    VALUES (%s, %s, %s, %s, %s, %s)
"""


class Outbox:
    """Creates the deliveries for new events. Connections must be in autocommit mode."""

    def __init__(self) -> None:
        self._codec = EventCodec()
        self._topics = [self._codec.topic_of[event] for event in WEBHOOK_EVENTS]

    def fill(self, connection: Connection, now: datetime) -> int:
        """Create the deliveries for the next part of the log. Return the number of remaining positions.

        Raises:
            psycopg.OperationalError: the database was lost. Nothing was written.
        """
        with connection.transaction():
            cursor = connection.cursor(row_factory=tuple_row)
            row = cursor.execute(_CHECKPOINT, [READER]).fetchone()
            assert row is not None
            end = log_end(connection)
            up_to = min(end, row[0] + BATCH_POSITIONS_MAX)
            if up_to > row[0]:
                # A prepared statement's generic plan would read the whole log.
                cursor.execute(_SELECT_NEW, [row[0], up_to, self._topics], prepare=False)
                insert_deliveries(connection, [self._message(*row) for row in cursor.fetchall()], now)
                connection.execute(_MOVE, [up_to, READER])
        return int(end - up_to)

    def _message(self, *row: Any) -> tuple[str, WebhookMessage]:
        endpoint_id, organisation_id, stream, version, position, topic, state = row
        event = self._codec.decode(topic, state)
        return endpoint_id, event_message(organisation_id, stream, version, position, event)


def insert_deliveries(
    connection: Connection, messages: Sequence[tuple[str, WebhookMessage]], now: datetime
) -> None:
    """Queue messages for delivery to their endpoints, given as (endpoint id, message), in this order."""
    if messages:
        connection.cursor().executemany(
            _QUEUE, [(to, each.message_id, each.type, each.body, now, now) for to, each in messages]
        )
