"""Sessions of the pages in PostgreSQL. Like API keys, they are kept as digests of 256 random bits."""

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
    """All sessions. `connecting` lends a connection in autocommit mode."""

    def __init__(
        self,
        connecting: Callable[[], AbstractContextManager[Connection]],
        clock: Callable[[], datetime],
    ) -> None:
        self._connecting = connecting
        self._clock = clock

    def open(self, principal: Principal, ticket_id: str | None = None) -> Session:
        """Open a session, and forget those that are over.

        Raises:
            TicketUsed: the ticket has opened one.
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
        with self._connecting() as connection:
            # A ticket's own time is over long before its session is forgotten.
            connection.execute(_DELETE_EXPIRED, [now])
            try:
                connection.execute(_OPEN, values)
            except errors.UniqueViolation:
                raise TicketUsed("the sign-in link was used before: ask for another") from None
        return Session(session_id, principal, expires_at)

    def find(self, session_id: str) -> Session | None:
        """Return a session with its person's preferences; None when there is none, or it is over.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        if not 0 < len(session_id) <= _ID_LENGTH_MAX:
            return None
        with self._connecting() as connection:
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
        """End a session, if there is one.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        with self._connecting() as connection:
            connection.execute(_END, [self._clock(), _digest(session_id)])

    def save_preferences(self, subject: str, preferences: Preferences) -> None:
        """Remember what somebody prefers.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        with self._connecting() as connection:
            connection.execute(
                _UPDATE_PREFERENCES, [subject, preferences.shows_price, preferences.scheme.value]
            )


def _digest(session_id: str) -> bytes:
    return sha256(session_id.encode("utf-8", "replace")).digest()
