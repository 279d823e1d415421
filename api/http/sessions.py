"""Sessions of the pages, and the protocol of their storage. No driver, no clock."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Protocol

from domain.identity.principals import Principal, PrincipalKind

SIGN_IN: Final = "/sign-in"
SESSION_LIFETIME: Final = timedelta(hours=8)
PAGE_PRINCIPAL_KINDS: Final = frozenset({PrincipalKind.PERSON, PrincipalKind.STAFF, PrincipalKind.AUDITOR})
"""The kinds of principals that may use the pages. Programs use the API."""


class Scheme(StrEnum):
    """The colour scheme of a person."""

    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True)
class Preferences:
    """The preferences of a person, the same in all their sessions."""

    shows_price: bool = False
    scheme: Scheme = Scheme.SYSTEM


@dataclass(frozen=True)
class Session:
    """A signed-in person. The session id is a secret, so `repr` does not show it."""

    session_id: str = field(repr=False)
    principal: Principal
    expires_at: datetime
    preferences: Preferences = Preferences()

    @property
    def csrf_token(self) -> str:
        """The token in the session's own forms. A page of another site cannot know it."""
        digest = hmac.new(self.session_id.encode(), b"form", sha256).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=")

    def is_valid_csrf_token(self, token: str) -> bool:
        """Return whether a form with this token comes from a page of this session."""
        return hmac.compare_digest(token.encode(), self.csrf_token.encode())


class TicketUsed(Exception):
    """The sign-in link was already used."""


class Sessions(Protocol):
    """The storage of sessions.

    Every operation raises psycopg.OperationalError if the database is unavailable.
    """

    def open(self, principal: Principal, ticket_id: str | None = None) -> Session:
        """Open a session that lasts `SESSION_LIFETIME`. A ticket can open only one session.

        Raises:
            TicketUsed: the ticket has already opened a session.
        """
        ...

    def find(self, session_id: str) -> Session | None:
        """Return a session with its person's preferences, or None if it does not exist or has expired."""
        ...

    def end(self, session_id: str) -> None:
        """End a session, if it exists."""
        ...

    def save_preferences(self, subject: str, preferences: Preferences) -> None:
        """Save the preferences of a person."""
        ...


@dataclass(frozen=True)
class SignInTicket:
    """The verified content of a sign-in link."""

    ticket_id: str
    principal: Principal
