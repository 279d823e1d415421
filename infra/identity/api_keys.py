"""API keys in PostgreSQL.

A key holds 256 random bits, so it cannot be guessed from its digest. Plain SHA-256 is therefore as safe as a
slow password hash, and fast enough for every request.

The organisation's events record who created and who revoked a key. The row and the event commit in one
transaction.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from psycopg.rows import class_row, tuple_row

from domain.credits.audit_events import ApiKeyIssued, ApiKeyRevoked
from domain.credits.commands import CreditCommands
from domain.identity.principals import (
    API_KEYS_MAX,
    ApiKey,
    ApiKeyNotFound,
    ApiKeysExhausted,
    InvalidCredentials,
    Principal,
    PrincipalKind,
    Role,
)
from domain.shared.command_context import CommandContext
from infra.event_store.shared_transaction import shared_transaction
from projections.connection import Connection

_FORM: Final = re.compile(r"clk_([0-9a-f]{12})_[\w-]{43}", re.ASCII)
_SECRET_BYTES: Final = 32
_LAST_USED_INTERVAL: Final = timedelta(minutes=1)
_NO_DIGEST: Final = bytes(32)

_COLUMNS: Final = "key_id, organisation_id, name, created_at, created_by, last_used_at"
_OF_ORGANISATION: Final = "FROM ledger.api_keys WHERE organisation_id = %s AND revoked_at IS NULL"
_ACTIVE: Final = f"SELECT {_COLUMNS} {_OF_ORGANISATION} ORDER BY created_at, key_id"
_COUNT: Final = f"SELECT count(*) {_OF_ORGANISATION}"
_ADD: Final = f"""
    INSERT INTO ledger.api_keys (key_id, organisation_id, name, digest, created_at, created_by)
    VALUES (%s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}
"""  # noqa: S608 - of the columns above
_REVOKE: Final = """
    UPDATE ledger.api_keys SET revoked_at = %s, revoked_by = %s
    WHERE key_id = %s AND organisation_id = %s AND revoked_at IS NULL
"""
_FIND: Final = """
    SELECT digest, organisation_id, last_used_at FROM ledger.api_keys WHERE key_id = %s AND revoked_at IS NULL
"""
_UPDATE_LAST_USED: Final = "UPDATE ledger.api_keys SET last_used_at = %s WHERE key_id = %s"


class PostgresApiKeys:
    """The API keys of all organisations. `connect` returns a context manager of an autocommit connection."""

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection]],
        clock: Callable[[], datetime],
        commands: CreditCommands,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._commands = commands

    def issue(self, organisation_id: str, name: str, context: CommandContext) -> tuple[ApiKey, str]:
        """Create a key. Return its description and the key itself, which is not stored.

        Raises:
            ApiKeysExhausted: the organisation has `API_KEYS_MAX` active keys.
            OrganisationNotFound, StoreUnavailable.
        """
        key_id = secrets.token_hex(6)
        key = f"clk_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        issued = ApiKeyIssued(*context.event_header, key_id)
        # The write lock prevents two concurrent requests from exceeding the limit.
        with shared_transaction(self._commands.ledger) as connection:
            self._commands.record_audit_event(organisation_id, issued)
            counted = connection.cursor(row_factory=tuple_row).execute(_COUNT, [organisation_id])
            if counted.fetchall()[0][0] >= API_KEYS_MAX:
                raise ApiKeysExhausted(f"the organisation has {API_KEYS_MAX} active keys; revoke one first")
            values = [key_id, organisation_id, name, _digest(key), context.at, context.actor]
            inserted = connection.cursor(row_factory=class_row(ApiKey)).execute(_ADD, values)
            return inserted.fetchall()[0], key

    def active(self, organisation_id: str) -> list[ApiKey]:
        """Return the active keys of an organisation, oldest first.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        with self._connect() as connection:
            return (
                connection.cursor(row_factory=class_row(ApiKey))
                .execute(_ACTIVE, [organisation_id])
                .fetchall()
            )

    def revoke(self, organisation_id: str, key_id: str, context: CommandContext) -> None:
        """Revoke a key. It is refused from now on.

        Raises:
            ApiKeyNotFound: the organisation has no active key with this id.
            OrganisationNotFound, StoreUnavailable.
        """
        revoked = ApiKeyRevoked(*context.event_header, key_id)
        with shared_transaction(self._commands.ledger) as connection:
            self._commands.record_audit_event(organisation_id, revoked)
            values = [context.at, context.actor, key_id, organisation_id]
            if not connection.execute(_REVOKE, values).rowcount:
                raise ApiKeyNotFound(f"the organisation has no active key {key_id}")

    def principal(self, key: str) -> Principal:
        """Return the principal of a key, and record its use.

        Raises:
            InvalidCredentials: the key does not exist, or is revoked.
            psycopg.OperationalError: the database does not answer.
        """
        form = _FORM.fullmatch(key)
        if form is None:
            raise InvalidCredentials("the API key is malformed")
        with self._connect() as connection:
            found = connection.cursor(row_factory=tuple_row).execute(_FIND, [form[1]]).fetchone()
            digest, organisation_id, last_used_at = found or (_NO_DIGEST, "", None)
            # Always compare full digests in constant time, so that timing reveals nothing.
            if not hmac.compare_digest(digest, _digest(key)):
                raise InvalidCredentials("the API key does not exist or is revoked")
            now = self._clock()
            if last_used_at is None or now - last_used_at >= _LAST_USED_INTERVAL:
                connection.execute(_UPDATE_LAST_USED, [now, form[1]])
        return Principal(f"api-key:{form[1]}", PrincipalKind.KEY, {organisation_id: Role.MEMBER})


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
