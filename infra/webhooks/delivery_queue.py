"""The queue of deliveries and their outcomes: rows of `ledger.webhook_deliveries`.

A transaction that writes both tables writes the endpoint first. This order avoids deadlocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from psycopg.rows import class_row, tuple_row

from domain.webhooks.endpoints import endpoint_paused_until, retry_at
from infra.webhooks.http_sender import Outcome
from projections.connection import Connection

# The first due delivery of each endpoint: new deliveries in their order, then retries. The recursive query
# jumps in the index from endpoint to endpoint, so its cost does not depend on the number of pending
# deliveries.
_DUE: Final = """
    WITH RECURSIVE waiting AS (
        SELECT min(endpoint_id) AS endpoint_id FROM ledger.webhook_deliveries
        WHERE next_attempt_at IS NOT NULL
        UNION ALL
        SELECT (SELECT min(endpoint_id) FROM ledger.webhook_deliveries
            WHERE next_attempt_at IS NOT NULL AND endpoint_id > waiting.endpoint_id)
        FROM waiting WHERE endpoint_id IS NOT NULL
    )
    SELECT endpoint_id, url, secret, old_secret, old_secret_until, failures,
        message_id, body, created_at, attempts
    FROM waiting JOIN ledger.webhook_endpoints AS endpoint USING (endpoint_id) CROSS JOIN LATERAL (
        SELECT message_id, body, created_at, attempts, sequence
        FROM ledger.webhook_deliveries AS delivery
        WHERE delivery.endpoint_id = endpoint.endpoint_id AND next_attempt_at <= %(now)s
        ORDER BY attempts > 0, sequence LIMIT 1
    ) AS first
    WHERE disabled_at IS NULL AND (rests_until IS NULL OR rests_until <= %(now)s)
        AND endpoint_id <> ALL(%(in_flight)s)
    ORDER BY failures > 0, sequence LIMIT %(limit)s
"""
_SUCCEEDED: Final = """
    UPDATE ledger.webhook_endpoints SET failures = 0, failing_since = NULL, rests_until = NULL
    WHERE endpoint_id = %s AND failures > 0
"""
_FAILED: Final = """
    UPDATE ledger.webhook_endpoints
    SET failures = failures + 1, failing_since = coalesce(failing_since, %s), rests_until = %s
    WHERE endpoint_id = %s RETURNING failing_since
"""
_INSERT_ATTEMPT: Final = """
    UPDATE ledger.webhook_deliveries
    SET attempts = attempts + 1, last_attempt_at = %s, last_status = %s, last_error = %s,
        next_attempt_at = %s, delivered_at = %s
    WHERE endpoint_id = %s AND message_id = %s AND next_attempt_at IS NOT NULL
"""
_BACKLOG: Final = """
    SELECT count(*), coalesce(extract(epoch FROM %s - min(created_at)), 0)::float8
    FROM ledger.webhook_deliveries WHERE next_attempt_at IS NOT NULL
"""
_PURGE: Final = "DELETE FROM ledger.webhook_deliveries WHERE created_at < %s AND next_attempt_at IS NULL"


class DueDelivery(msgspec.Struct, frozen=True):
    """A due delivery with the data of its endpoint."""

    endpoint_id: str
    url: str
    secret: str
    old_secret: str | None
    old_secret_until: datetime | None
    failures: int
    message_id: str
    body: bytes
    created_at: datetime
    attempts: int

    def live_secrets(self, now: datetime) -> Sequence[str]:
        """Return the secrets for the signature, newest first."""
        if self.old_secret is None or self.old_secret_until is None or self.old_secret_until <= now:
            return [self.secret]
        return [self.secret, self.old_secret]


class Backlog(msgspec.Struct, frozen=True):
    """Number of pending deliveries, and the age of the oldest in seconds."""

    pending: int
    oldest_s: float


def select_due(
    connection: Connection, now: datetime, limit: int, in_flight: Sequence[str]
) -> list[DueDelivery]:
    """Return due deliveries: one per endpoint without a delivery in flight, failing endpoints last."""
    values = {"now": now, "limit": limit, "in_flight": list(in_flight)}
    return connection.cursor(row_factory=class_row(DueDelivery)).execute(_DUE, values).fetchall()


def record_success(connection: Connection, delivery: DueDelivery, outcome: Outcome, now: datetime) -> None:
    """Record a successful attempt."""
    with connection.transaction():
        connection.execute(_SUCCEEDED, [delivery.endpoint_id])
        _record_attempt(connection, delivery, outcome, now, None)


def record_failure(
    connection: Connection, delivery: DueDelivery, outcome: Outcome, now: datetime, jitter: float
) -> datetime | None:
    """Record a failed attempt and the time of the next one.

    Returns:
        The time since which the endpoint fails; None if the endpoint was removed.
    """
    paused_until = endpoint_paused_until(now, failures=delivery.failures + 1, jitter=jitter)
    next_attempt_at = retry_at(
        now, attempts=delivery.attempts + 1, created_at=delivery.created_at, jitter=jitter
    )
    with connection.transaction():
        failed = connection.cursor(row_factory=tuple_row).execute(
            _FAILED, [now, paused_until, delivery.endpoint_id]
        )
        row = failed.fetchone()
        _record_attempt(connection, delivery, outcome, now, next_attempt_at)
    return None if row is None else row[0]


def backlog(connection: Connection, now: datetime) -> Backlog:
    """Return the pending deliveries."""
    row = connection.cursor(row_factory=tuple_row).execute(_BACKLOG, [now]).fetchone()
    assert row is not None
    return Backlog(*row)


def purge(connection: Connection, before: datetime) -> None:
    """Delete finished deliveries of messages created before a moment."""
    connection.execute(_PURGE, [before])


def _record_attempt(
    connection: Connection,
    delivery: DueDelivery,
    outcome: Outcome,
    now: datetime,
    next_attempt_at: datetime | None,
) -> None:
    delivered_at = now if outcome.delivered else None
    values = [now, outcome.status, outcome.error, next_attempt_at, delivered_at]
    connection.execute(_INSERT_ATTEMPT, [*values, delivery.endpoint_id, delivery.message_id])
