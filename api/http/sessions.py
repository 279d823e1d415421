"""Who is signed in to the pages, and what the pages need from outside. No driver, no clock."""

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
"""Who has pages: programs have the API."""


class Scheme(StrEnum):
    """Which colours somebody wants."""

    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True)
class Preferences:
    """What the pages remember for a person, wherever they sign in."""

    shows_price: bool = False
    scheme: Scheme = Scheme.SYSTEM


@dataclass(frozen=True)
class Session:
    """Somebody signed in. Whoever knows the id is them: it never shows in a text of it."""

    session_id: str = field(repr=False)
    principal: Principal
    expires_at: datetime
    preferences: Preferences = Preferences()

    @property
    def csrf_token(self) -> str:
        """What the session's own forms carry: another site's page cannot know it."""
        digest = hmac.new(self.session_id.encode(), b"form", sha256).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=")

    def is_valid_csrf_token(self, token: str) -> bool:
        """Tell whether a form with this token is of the session's own pages."""
        return hmac.compare_digest(token.encode(), self.csrf_token.encode())


class TicketUsed(Exception):
    """The sign-in link was used before."""


class Sessions(Protocol):
    """All sessions. Every operation raises psycopg.OperationalError without a database."""

    def open(self, principal: Principal, ticket_id: str | None = None) -> Session:
        """Open a session that lasts `SESSION_LIFETIME`; a ticket opens one, once.

        Raises:
            TicketUsed: the ticket has opened one.
        """
        ...

    def find(self, session_id: str) -> Session | None:
        """Return a session with its person's preferences; None when there is none, or it is over."""
        ...

    def end(self, session_id: str) -> None:
        """End a session, if there is one."""
        ...

    def save_preferences(self, subject: str, preferences: Preferences) -> None:
        """Remember what somebody prefers."""
        ...


@dataclass(frozen=True)
class Ticket:
    """A sign-in link's claim, verified."""

    ticket_id: str
    principal: Principal
