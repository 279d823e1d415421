"""The services that the pages need from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from api.http.sessions import Sessions, SignInTicket
from domain.payments.reconciliation import Difference


@dataclass(frozen=True)
class DeadLetter:
    """A refused usage message, as text. `refused_at` is the value of its header."""

    reason: str
    field: str
    refused_at: str
    place: str
    key: str
    value: str


@dataclass(frozen=True)
class PageServices:
    """What the pages need in addition to `Services`."""

    sessions: Sessions
    verify_ticket: Callable[[str], SignInTicket] | None = None
    """Verifies the ticket of a sign-in link. None: sign-in links exist only with the embedded issuer.
    Raises domain.identity.principals.InvalidCredentials."""
    secure_cookies: bool = True
    """Off only if the service listens on loopback alone."""
    sign_in_origins: frozenset[str] = frozenset()
    """Sites, such as https://app.example, whose pages may post a token to /sign-in."""
    support_contact: str = ""
    """An email address or https link; empty: no contact."""
    dead_letters: Callable[[], Sequence[DeadLetter]] = tuple
    """Reads the latest dead letters, newest first."""
    gateways: tuple[str, ...] = ()
    """The names of the configured payment gateways."""
    reconcile: Callable[[str, date, date], Sequence[Difference]] = lambda gateway, first, last: ()
    """Compares a gateway with the ledger, from the first to the last day, both included (UTC).
    Raises GatewayError."""

    @property
    def cookie_name(self) -> str:
        """The name of the session cookie.

        Browsers accept a `__Host-` cookie only if it is secure, limited to this host, and valid for all
        paths.
        """
        return "__Host-creditledger" if self.secure_cookies else "creditledger"

    def session_id(self, cookies: Mapping[str, str]) -> str:
        """Return the session id from a request's cookies, or an empty string."""
        return cookies.get(self.cookie_name, "")
