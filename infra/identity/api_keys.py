"""API keys in PostgreSQL.

A key holds 256 random bits, so nobody can guess one from its digest: plain SHA-256 keeps it as safe as a slow
hash would, which is made for passwords that people choose, and costs every request nothing.

Who made and who revoked a key is a fact of the organisation's history: row and fact are one transaction.
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
from domain.credits.ledger import Ledger
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
_LIVE: Final = f"SELECT {_COLUMNS} {_OF_ORGANISATION} ORDER BY created_at, key_id"
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
    """The keys of all organisations. `connecting` lends a connection in autocommit mode."""

    def __init__(
        self,
        connecting: Callable[[], AbstractContextManager[Connection]],
        clock: Callable[[], datetime],
        ledger: Ledger,
    ) -> None:
        self._connecting = connecting
        self._clock = clock
        self._ledger = ledger

    def issue(self, organisation_id: str, name: str, context: CommandContext) -> tuple[ApiKey, str]:
        """Make a key; return what is known of it, and the key itself, which is never seen again.

        Raises:
            ApiKeysExhausted: the organisation has `API_KEYS_MAX` live ones.
            OrganisationNotFound, StoreUnavailable.
        """
        key_id = secrets.token_hex(6)
        key = f"clk_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        issued = ApiKeyIssued(context.at, context.actor, context.cause, key_id)
        # One at a time: two requests at once never both see one place left.
        with shared_transaction(self._ledger) as connection:
            self._ledger.record_audit_event(organisation_id, issued)
            counting = connection.cursor(row_factory=tuple_row).execute(_COUNT, [organisation_id])
            if counting.fetchall()[0][0] >= API_KEYS_MAX:
                raise ApiKeysExhausted(f"the organisation has {API_KEYS_MAX} live keys; revoke one first")
            values = [key_id, organisation_id, name, _digest(key), context.at, context.actor]
            adding = connection.cursor(row_factory=class_row(ApiKey)).execute(_ADD, values)
            return adding.fetchall()[0], key

    def active(self, organisation_id: str) -> list[ApiKey]:
        """Return the live keys of an organisation, oldest first.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        with self._connecting() as connection:
            return (
                connection.cursor(row_factory=class_row(ApiKey)).execute(_LIVE, [organisation_id]).fetchall()
            )

    def revoke(self, organisation_id: str, key_id: str, context: CommandContext) -> None:
        """End a key: from now on it is refused.

        Raises:
            ApiKeyNotFound: the organisation has no live key of this id.
            OrganisationNotFound, StoreUnavailable.
        """
        revoked = ApiKeyRevoked(context.at, context.actor, context.cause, key_id)
        with shared_transaction(self._ledger) as connection:
            self._ledger.record_audit_event(organisation_id, revoked)
            values = [context.at, context.actor, key_id, organisation_id]
            if not connection.execute(_REVOKE, values).rowcount:
                raise ApiKeyNotFound(f"the organisation has no live key {key_id}")

    def principal(self, key: str) -> Principal:
        """Return the principal of a key, and note that it was used.

        Raises:
            InvalidCredentials: there is no such key, or it was revoked.
            psycopg.OperationalError: the database does not answer.
        """
        form = _FORM.fullmatch(key)
        if form is None:
            raise InvalidCredentials("the key is not of the form of one")
        with self._connecting() as connection:
            found = connection.cursor(row_factory=tuple_row).execute(_FIND, [form[1]]).fetchone()
            digest, organisation_id, last_used_at = found or (_NO_DIGEST, "", None)
            # Digests are compared whole, also where there is none: the time says nothing of either.
            if not hmac.compare_digest(digest, _digest(key)):
                raise InvalidCredentials("there is no such key, or it was revoked")
            now = self._clock()
            if last_used_at is None or now - last_used_at >= _LAST_USED_INTERVAL:
                connection.execute(_UPDATE_LAST_USED, [now, form[1]])
        return Principal(f"api-key:{form[1]}", PrincipalKind.KEY, {organisation_id: Role.MEMBER})


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
