"""What is due to endpoints, and what became of it: rows of `ledger.webhook_deliveries`.

Whoever writes both tables writes the endpoint first, so that nobody waits in a circle.
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

# Of each endpoint the first of its deliveries: those never attempted in their order, then those tried again.
# Endpoints that wait for nothing are skipped in the index, and those that do are met once, whatever waits.
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
        AND endpoint_id <> ALL(%(under_way)s)
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
    """A delivery to attempt now, and what is needed for it."""

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
        """Return the secrets to sign with, the newest first."""
        if self.old_secret is None or self.old_secret_until is None or self.old_secret_until <= now:
            return [self.secret]
        return [self.secret, self.old_secret]


class Backlog(msgspec.Struct, frozen=True):
    """Deliveries that wait for an attempt, and the age of the oldest."""

    pending: int
    oldest_s: float


def select_due(
    connection: Connection, now: datetime, limit: int, under_way: Sequence[str]
) -> list[DueDelivery]:
    """Return deliveries that are due, one for each endpoint that has none under way; failing ones last."""
    values = {"now": now, "limit": limit, "under_way": list(under_way)}
    return connection.cursor(row_factory=class_row(DueDelivery)).execute(_DUE, values).fetchall()


def record_success(connection: Connection, delivery: DueDelivery, outcome: Outcome, now: datetime) -> None:
    """Keep that a delivery arrived."""
    with connection.transaction():
        connection.execute(_SUCCEEDED, [delivery.endpoint_id])
        _record_attempt(connection, delivery, outcome, now, None)


def record_failure(
    connection: Connection, delivery: DueDelivery, outcome: Outcome, now: datetime, jitter: float
) -> datetime | None:
    """Keep that an attempt failed and when the next one is; return since when the endpoint fails.

    None: there is no such endpoint any more.
    """
    rests = endpoint_paused_until(now, failures=delivery.failures + 1, jitter=jitter)
    following = retry_at(now, attempts=delivery.attempts + 1, created_at=delivery.created_at, jitter=jitter)
    with connection.transaction():
        failed = connection.cursor(row_factory=tuple_row).execute(_FAILED, [now, rests, delivery.endpoint_id])
        row = failed.fetchone()
        _record_attempt(connection, delivery, outcome, now, following)
    return None if row is None else row[0]


def backlog(connection: Connection, now: datetime) -> Backlog:
    """Return what waits."""
    row = connection.cursor(row_factory=tuple_row).execute(_BACKLOG, [now]).fetchone()
    assert row is not None
    return Backlog(*row)


def purge(connection: Connection, before: datetime) -> None:
    """Forget deliveries that ended, of messages from before a moment."""
    connection.execute(_PURGE, [before])


def _record_attempt(
    connection: Connection, delivery: DueDelivery, outcome: Outcome, now: datetime, following: datetime | None
) -> None:
    delivered_at = now if outcome.delivered else None
    values = [now, outcome.status, outcome.error, following, delivered_at]
    connection.execute(_INSERT_ATTEMPT, [*values, delivery.endpoint_id, delivery.message_id])
