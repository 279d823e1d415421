"""Sessions of the pages in PostgreSQL. Like API keys, they are stored as digests of 256 random bits."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from hashlib import sha256
from typing import Final

from psycopg import errors
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from api.http.sessions import SESSION_LIFETIME, Preferences, Scheme, Session, TicketUsed
from domain.identity.principals import Principal, PrincipalKind, Role
from projections.connection import Connection

_ID_BYTES: Final = 32
_ID_LENGTH_MAX: Final = 64

_OPEN: Final = """
    INSERT INTO ledger.sessions (digest, subject, kind, memberships, ticket_id, created_at, expires_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
_DELETE_EXPIRED: Final = "DELETE FROM ledger.sessions WHERE expires_at < %s"
_FIND: Final = """
    SELECT subject, kind, memberships, expires_at, coalesce(shows_price, false), coalesce(scheme, 'system')
    FROM ledger.sessions LEFT JOIN ledger.page_preferences USING (subject)
    WHERE digest = %s AND expires_at > %s AND ended_at IS NULL
"""
_END: Final = "UPDATE ledger.sessions SET ended_at = %s WHERE digest = %s AND ended_at IS NULL"
_UPDATE_PREFERENCES: Final = """
    INSERT INTO ledger.page_preferences (subject, shows_price, scheme) VALUES (%s, %s, %s)
    ON CONFLICT (subject) DO UPDATE SET shows_price = excluded.shows_price, scheme = excluded.scheme
"""


class PostgresSessions:
    """All sessions. `connect` returns a context manager of an autocommit connection."""

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection]],
        clock: Callable[[], datetime],
    ) -> None:
        self._connect = connect
        self._clock = clock

    def open(self, principal: Principal, ticket_id: str | None = None) -> Session:
        """Open a session, and delete expired ones.

        Raises:
            TicketUsed: the ticket has already opened a session.
            psycopg.OperationalError: the database does not answer.
        """
        session_id = secrets.token_urlsafe(_ID_BYTES)
        now = self._clock()
        expires_at = now + SESSION_LIFETIME
        memberships = Jsonb({name: role.value for name, role in principal.memberships.items()})
        values = [
            _digest(session_id),
            principal.subject,
            principal.kind.value,
            memberships,
            ticket_id,
            now,
            expires_at,
        ]
        with self._connect() as connection:
            # A ticket expires long before the row of its session is deleted, so it cannot be used again.
            connection.execute(_DELETE_EXPIRED, [now])
            try:
                connection.execute(_OPEN, values)
            except errors.UniqueViolation:
                raise TicketUsed("the sign-in link was already used: request a new one") from None
        return Session(session_id, principal, expires_at)

    def find(self, session_id: str) -> Session | None:
        """Return a session with its user's preferences; None if it does not exist or has ended.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        if not 0 < len(session_id) <= _ID_LENGTH_MAX:
            return None
        with self._connect() as connection:
            cursor = connection.cursor(row_factory=tuple_row)
            found = cursor.execute(_FIND, [_digest(session_id), self._clock()]).fetchone()
        if found is None:
            return None
        subject, kind, memberships, expires_at, shows_price, scheme = found
        roles = {name: Role(role) for name, role in memberships.items()}
        return Session(
            session_id,
            Principal(subject, PrincipalKind(kind), roles),
            expires_at,
            Preferences(shows_price, Scheme(scheme)),
        )

    def end(self, session_id: str) -> None:
        """End a session. Do nothing if it does not exist.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        with self._connect() as connection:
            connection.execute(_END, [self._clock(), _digest(session_id)])

    def save_preferences(self, subject: str, preferences: Preferences) -> None:
        """Store the preferences of a user.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        with self._connect() as connection:
            connection.execute(
                _UPDATE_PREFERENCES, [subject, preferences.shows_price, preferences.scheme.value]
            )


def _digest(session_id: str) -> bytes:
    return sha256(session_id.encode("utf-8", "replace")).digest()
