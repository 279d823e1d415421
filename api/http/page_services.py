"""What the pages need from outside, as protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from api.http.sessions import Sessions, Ticket
from domain.payments.reconciliation import Difference


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
    verify_ticket: Callable[[str], Ticket] | None = None
    """Verifies the ticket of a sign-in link, where there are such links: with the embedded issuer.
    Raises domain.identity.principals.InvalidCredentials."""
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
