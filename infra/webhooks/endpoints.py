"""Webhook endpoints in PostgreSQL. Each change is also an event of the organisation, in the same transaction.

Secrets are stored in plain text, because deliveries are signed with them. A URL may contain secrets too, so
events and logs contain only the endpoint's id.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any, Final

import psycopg
from psycopg.rows import class_row, tuple_row

from consumers.publishing.webhook_messages import endpoint_test_message
from domain.credits import audit_events
from domain.credits.audit_events import (
    WebhookEndpointAdded,
    WebhookEndpointRemoved,
    WebhookSecretRotated,
)
from domain.credits.commands import CreditCommands
from domain.shared.command_context import CommandContext
from domain.shared.stream_keys import stream_id
from domain.webhooks.endpoints import (
    DELIVERIES_LISTED_MAX,
    ENDPOINTS_MAX,
    OLD_SECRET_VALIDITY,
    SECRET_PREFIX,
    Delivery,
    Endpoint,
)
from domain.webhooks.errors import (
    WebhookEndpointLimitReached,
    WebhookEndpointNotEnabled,
    WebhookEndpointNotFound,
)
from domain.webhooks.url_policy import check_url
from infra.event_store.shared_transaction import shared_transaction
from infra.webhooks.outbox import insert_deliveries
from projections.connection import Connection

_SECRET_BYTES: Final = 32
_COLUMNS: Final = "endpoint_id, url, added_at, added_by, failing_since, disabled_at"
_OF_ORGANISATION: Final = f"""
    SELECT {_COLUMNS} FROM ledger.webhook_endpoints WHERE organisation_id = %s ORDER BY added_at, endpoint_id
"""  # noqa: S608 - of the columns above
_ONE: Final = f"""
    SELECT {_COLUMNS} FROM ledger.webhook_endpoints WHERE organisation_id = %s AND endpoint_id = %s
"""  # noqa: S608
_COUNT: Final = "SELECT count(*) FROM ledger.webhook_endpoints WHERE organisation_id = %s"
_ADD: Final = f"""
    INSERT INTO ledger.webhook_endpoints
        (endpoint_id, organisation_id, stream, url, secret, added_at, added_by, since_position)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}
"""  # noqa: S608
_REMOVE: Final = "DELETE FROM ledger.webhook_endpoints WHERE organisation_id = %s AND endpoint_id = %s"
_ROTATE: Final = """
    UPDATE ledger.webhook_endpoints SET secret = %s, old_secret = secret, old_secret_until = %s
    WHERE organisation_id = %s AND endpoint_id = %s
"""
_ENABLE: Final = f"""
    UPDATE ledger.webhook_endpoints
    SET disabled_at = NULL, failing_since = NULL, failures = 0, rests_until = NULL, since_position = %s
    WHERE endpoint_id = %s RETURNING {_COLUMNS}
"""  # noqa: S608
_DISABLE: Final = """
    UPDATE ledger.webhook_endpoints SET disabled_at = %s
    WHERE endpoint_id = %s AND disabled_at IS NULL AND failing_since IS NOT NULL
    RETURNING organisation_id, failing_since
"""
_CANCEL_PENDING: Final = """
    UPDATE ledger.webhook_deliveries SET next_attempt_at = NULL
    WHERE endpoint_id = %s AND next_attempt_at IS NOT NULL
"""
_DELIVERIES: Final = """
    SELECT message_id, type, created_at, attempts, last_attempt_at, last_status, last_error, next_attempt_at,
        delivered_at
    FROM ledger.webhook_deliveries WHERE endpoint_id = %s ORDER BY sequence DESC LIMIT %s
"""


class PostgresWebhookEndpoints:
    """Implements `domain.webhooks.endpoints.WebhookEndpoints`.

    `connect` returns a context manager of an autocommit connection.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection]],
        commands: CreditCommands,
        *,
        allow_private: bool,
    ) -> None:
        self._connect = connect
        self._commands = commands
        self._allow_private = allow_private

    def add(self, organisation_id: str, url: str, context: CommandContext) -> tuple[Endpoint, str]:
        check_url(url, allow_private=self._allow_private)
        endpoint_id, secret = f"whe_{secrets.token_hex(6)}", _new_secret()
        digest = sha256(url.encode()).hexdigest()
        with shared_transaction(self._commands.ledger) as connection:
            added = self._commands.record_audit_event(
                organisation_id,
                WebhookEndpointAdded(*context.event_header, endpoint_id, digest),
            )
            counted = connection.cursor(row_factory=tuple_row).execute(_COUNT, [organisation_id])
            if counted.fetchall()[0][0] >= ENDPOINTS_MAX:
                raise WebhookEndpointLimitReached(
                    f"the organisation has {ENDPOINTS_MAX} webhook endpoints; remove one first"
                )
            stream = stream_id(organisation_id)
            values = [endpoint_id, organisation_id, stream, url, secret, context.at, context.actor]
            (endpoint,) = _endpoints(connection, _ADD, [*values, added.position])
        return endpoint, secret

    def of(self, organisation_id: str) -> list[Endpoint]:
        with self._connect() as connection:
            return _endpoints(connection, _OF_ORGANISATION, [organisation_id])

    def remove(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> None:
        removed = WebhookEndpointRemoved(*context.event_header, endpoint_id)
        with shared_transaction(self._commands.ledger) as connection:
            self._commands.record_audit_event(organisation_id, removed)
            _expect_one(connection.execute(_REMOVE, [organisation_id, endpoint_id]), endpoint_id)

    def rotate_secret(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> str:
        secret = _new_secret()
        rotated = WebhookSecretRotated(*context.event_header, endpoint_id)
        with shared_transaction(self._commands.ledger) as connection:
            self._commands.record_audit_event(organisation_id, rotated)
            values = [secret, context.at + OLD_SECRET_VALIDITY, organisation_id, endpoint_id]
            _expect_one(connection.execute(_ROTATE, values), endpoint_id)
        return secret

    def enable(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> Endpoint:
        with shared_transaction(self._commands.ledger) as connection:
            endpoint = _one(connection, organisation_id, endpoint_id)
            if endpoint.disabled_at is None:
                return endpoint
            enabled = self._commands.record_audit_event(
                organisation_id,
                audit_events.WebhookEndpointEnabled(*context.event_header, endpoint_id),
            )
            (endpoint,) = _endpoints(connection, _ENABLE, [enabled.position, endpoint_id])
        return endpoint

    def disable(self, endpoint_id: str, context: CommandContext) -> bool:
        """Disable an endpoint and cancel its pending deliveries. Return False if it was already disabled.

        Raises:
            StoreUnavailable.
        """
        with shared_transaction(self._commands.ledger) as connection:
            row = (
                connection.cursor(row_factory=tuple_row)
                .execute(_DISABLE, [context.at, endpoint_id])
                .fetchone()
            )
            if row is None:
                return False
            organisation_id, failing_since = row
            connection.execute(_CANCEL_PENDING, [endpoint_id])
            self._commands.record_audit_event(
                organisation_id,
                audit_events.WebhookEndpointDisabled(*context.event_header, endpoint_id, failing_since),
            )
        return True

    def send_test(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> str:
        message = endpoint_test_message(organisation_id, endpoint_id, secrets.token_hex(8), context.at)
        with self._connect() as connection, connection.transaction():
            if _one(connection, organisation_id, endpoint_id, lock=True).disabled_at is not None:
                raise WebhookEndpointNotEnabled(endpoint_id=endpoint_id)
            insert_deliveries(connection, [(endpoint_id, message)], context.at)
        return message.message_id

    def deliveries(self, organisation_id: str, endpoint_id: str) -> list[Delivery]:
        with self._connect() as connection:
            _one(connection, organisation_id, endpoint_id)
            cursor = connection.cursor(row_factory=class_row(Delivery))
            return cursor.execute(_DELIVERIES, [endpoint_id, DELIVERIES_LISTED_MAX]).fetchall()


def _one(connection: Connection, organisation_id: str, endpoint_id: str, *, lock: bool = False) -> Endpoint:
    """Return an endpoint. With `lock`, it cannot be removed until the transaction ends."""
    locking = " FOR KEY SHARE" if lock else ""
    found = _endpoints(connection, _ONE + locking, [organisation_id, endpoint_id])
    if not found:
        raise _not_found(endpoint_id)
    return found[0]


def _endpoints(connection: Connection, query: str, values: list[Any]) -> list[Endpoint]:
    return connection.cursor(row_factory=class_row(Endpoint)).execute(query.encode(), values).fetchall()


def _expect_one(cursor: psycopg.Cursor[Any], endpoint_id: str) -> None:
    if cursor.rowcount != 1:
        raise _not_found(endpoint_id)


def _not_found(endpoint_id: str) -> WebhookEndpointNotFound:
    return WebhookEndpointNotFound(f"the organisation has no webhook endpoint {endpoint_id}")


def _new_secret() -> str:
    return SECRET_PREFIX + b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
