"""Who is signed in to the pages, and what the pages need from outside. No driver, no clock."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Protocol

from api.identity import Kind, Principal
from domain.reconciliation import Difference

SIGN_IN: Final = "/sign-in"
SESSION_LASTS: Final = timedelta(hours=8)
KINDS: Final = frozenset({Kind.PERSON, Kind.STAFF, Kind.AUDITOR})
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
    def form_token(self) -> str:
        """What the session's own forms carry: another site's page cannot know it."""
        digest = hmac.new(self.session_id.encode(), b"form", sha256).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=")

    def has_sent(self, token: str) -> bool:
        """Tell whether a form with this token is of the session's own pages."""
        return hmac.compare_digest(token.encode(), self.form_token.encode())


class TicketUsed(Exception):
    """The sign-in link was used before."""


class Sessions(Protocol):
    """All sessions. Every operation raises psycopg.OperationalError without a database."""

    def open(self, principal: Principal, ticket_id: str | None = None) -> Session:
        """Open a session that lasts `SESSION_LASTS`; a ticket opens one, once.

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

    def prefer(self, subject: str, preferences: Preferences) -> None:
        """Remember what somebody prefers."""
        ...


@dataclass(frozen=True)
class Ticket:
    """A sign-in link's claim, verified."""

    ticket_id: str
    principal: Principal


@dataclass(frozen=True)
class DeadLetter:
    """A usage message that was refused, as text; `refused_at` is what the header says."""

    reason: str
    field: str
    refused_at: str
    place: str
    key: str
    value: str


@dataclass(frozen=True)
class PageServices:
    """What the pages need beside what the API stands on."""

    sessions: Sessions
    redeem: Callable[[str], Ticket] | None = None
    """Verifies the ticket of a sign-in link, where there are such links: with the embedded issuer.
    Raises api.identity.CredentialsRefused."""
    secure_cookies: bool = True
    """Off only where the service listens on loopback alone."""
    sign_in_origins: frozenset[str] = frozenset()
    """Sites, such as https://app.example, whose pages may post a token to /sign-in."""
    support_contact: str = ""
    """An email address or https link; none if empty."""
    dead_letters: Callable[[], Sequence[DeadLetter]] = tuple
    """Reads the latest refused messages, newest first."""
    gateways: tuple[str, ...] = ()
    """The payment gateways there are, by name."""
    reconcile: Callable[[str, date, date], Sequence[Difference]] = lambda gateway, first, last: ()
    """Compares a gateway with the ledger from a day to another, both included (UTC).
    Raises GatewayError."""

    @property
    def cookie_name(self) -> str:
        """Browsers take a `__Host-` cookie only if it is secure, of this host alone, and for every path."""
        return "__Host-creditledger" if self.secure_cookies else "creditledger"

    def session_id(self, cookies: Mapping[str, str]) -> str:
        """Return the session id that a request's cookies carry, or an empty text."""
        return cookies.get(self.cookie_name, "")
