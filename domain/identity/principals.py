"""Who asks: principals, what they present, and what the API needs to know them. No driver, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from domain.shared.command_context import CommandContext

API_KEYS_MAX: Final = 10
"""Live keys an organisation has at most."""


class PrincipalKind(StrEnum):
    """What a principal is."""

    PERSON = "person"
    """Of some organisations, as admin or member of each."""
    KEY = "key"
    """A program of one organisation."""
    SERVICE = "service"
    """The processing pipeline."""
    STAFF = "staff"
    AUDITOR = "auditor"


class Role(StrEnum):
    """What a person is in an organisation."""

    ADMIN = "admin"
    MEMBER = "member"


@dataclass(frozen=True)
class Principal:
    """Somebody who proved who they are.

    `subject` is an opaque id of 1 to 128 printable ASCII characters: events keep it for ever as their actor.
    """

    subject: str
    kind: PrincipalKind
    memberships: Mapping[str, Role] = field(default_factory=dict)
    """Of a person, by organisation id; a key is a member of its own."""

    @property
    def belongs_to_organisations(self) -> bool:
        """Whether it may only know of the organisations it is a member of."""
        return self.kind in (PrincipalKind.PERSON, PrincipalKind.KEY)

    def may_see(self, organisation_id: str) -> bool:
        """Tell whether it may know that an organisation is there."""
        return not self.belongs_to_organisations or organisation_id in self.memberships


@dataclass(frozen=True)
class Credentials:
    """What a request presents: one of the two. Neither ever shows in a text of it."""

    token: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)


class InvalidCredentials(Exception):
    """The credentials are not good; the message is for the caller and quotes nothing of them."""


class IdentityProviderUnavailable(Exception):
    """Who asks cannot be found out at the moment: the issuer's keys cannot be had."""


class Identify(Protocol):
    """Finds out whose credentials these are."""

    def __call__(self, credentials: Credentials) -> Principal:
        """Return the principal. May read the database or the network.

        Raises:
            InvalidCredentials: they are wrong, expired, revoked, or of another issuer or audience.
            IdentityProviderUnavailable: the issuer does not answer.
            psycopg.OperationalError: the database does not answer.
        """
        ...


@dataclass(frozen=True)
class ApiKey:
    """A live key, without its secret. Times are aware; the last use is known to the minute."""

    key_id: str
    organisation_id: str
    name: str
    created_at: datetime
    created_by: str
    last_used_at: datetime | None


class ApiKeyNotFound(Exception):
    """The organisation has no live key of this id."""


class ApiKeysExhausted(Exception):
    """The organisation has as many live keys as it may."""


class ApiKeys(Protocol):
    """The keys of all organisations. Making and revoking one are events of its organisation."""

    def issue(self, organisation_id: str, name: str, context: CommandContext) -> tuple[ApiKey, str]:
        """Make a key; return it, and its text, which is never seen again.

        Raises:
            ApiKeysExhausted: the organisation has `API_KEYS_MAX` live ones.
            OrganisationNotFound, StoreUnavailable.
        """
        ...

    def active(self, organisation_id: str) -> list[ApiKey]:
        """Return the live keys of an organisation, oldest first.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        ...

    def revoke(self, organisation_id: str, key_id: str, context: CommandContext) -> None:
        """End a key: from now on it is refused.

        Raises:
            ApiKeyNotFound: the organisation has no live key of this id.
            OrganisationNotFound, StoreUnavailable.
        """
        ...
