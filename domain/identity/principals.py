"""Principals, their credentials, and the ports that identify them. No driver, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from domain.shared.command_context import CommandContext

API_KEYS_MAX: Final = 10
"""The maximum number of live keys per organisation."""


class PrincipalKind(StrEnum):
    """The kind of a principal."""

    PERSON = "person"
    """A user who belongs to organisations, with a role in each."""
    KEY = "key"
    """A program that belongs to one organisation."""
    SERVICE = "service"
    """The processing pipeline."""
    STAFF = "staff"
    AUDITOR = "auditor"


class Role(StrEnum):
    """A person's role in an organisation."""

    ADMIN = "admin"
    MEMBER = "member"


@dataclass(frozen=True)
class Principal:
    """An authenticated caller.

    `subject` is an opaque id of 1 to 128 printable ASCII characters. Events store it forever as their actor.
    """

    subject: str
    kind: PrincipalKind
    memberships: Mapping[str, Role] = field(default_factory=dict)
    """Roles by organisation id; an API key is a member of its own organisation."""

    @property
    def belongs_to_organisations(self) -> bool:
        """Whether it may only see organisations that it is a member of."""
        return self.kind in (PrincipalKind.PERSON, PrincipalKind.KEY)

    def may_see(self, organisation_id: str) -> bool:
        """Return whether it may know that an organisation exists."""
        return not self.belongs_to_organisations or organisation_id in self.memberships


@dataclass(frozen=True)
class Credentials:
    """The credentials of a request: one of the two fields. `repr` shows neither."""

    token: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)


class InvalidCredentials(Exception):
    """The credentials are not valid.

    The message is for the caller and quotes no part of them.
    """


class IdentityProviderUnavailable(Exception):
    """The caller cannot be identified at the moment: the issuer's keys cannot be fetched."""


class Identify(Protocol):
    """Identifies the principal of credentials."""

    def __call__(self, credentials: Credentials) -> Principal:
        """Return the principal. May read the database or the network.

        Raises:
            InvalidCredentials: they are wrong, expired or revoked, or they are from another issuer or for
                another audience.
            IdentityProviderUnavailable: the issuer does not answer.
            psycopg.OperationalError: the database does not answer.
        """
        ...


@dataclass(frozen=True)
class ApiKey:
    """A live key, without its secret. Times are aware; the last use is stored to the minute."""

    key_id: str
    organisation_id: str
    name: str
    created_at: datetime
    created_by: str
    last_used_at: datetime | None


class ApiKeyNotFound(Exception):
    """The organisation has no live key of this id."""


class ApiKeysExhausted(Exception):
    """The organisation has the maximum number of live keys."""


class ApiKeys(Protocol):
    """The API keys of all organisations. Issuing or revoking a key is an event of its organisation."""

    def issue(self, organisation_id: str, name: str, context: CommandContext) -> tuple[ApiKey, str]:
        """Issue a key. Return it and its text, which cannot be read again.

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
        """Revoke a key: from now on it is refused.

        Raises:
            ApiKeyNotFound: the organisation has no live key of this id.
            OrganisationNotFound, StoreUnavailable.
        """
        ...
