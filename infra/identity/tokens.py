"""Verifies bearer tokens (JWTs of one issuer and audience) and converts their claims to principals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import jwt

from api.http.sessions import SignInTicket
from domain.identity.principals import (
    Credentials,
    InvalidCredentials,
    Principal,
    PrincipalKind,
    Role,
)
from infra.identity.api_keys import PostgresApiKeys

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""Accepted signature algorithms.

Never `none`, and no shared secrets, because a verifier could forge tokens.
"""
LEEWAY_S: Final = 30
_TOKEN_LENGTH_MAX: Final = 16_384
_ROLES: Final = {
    kind.value: kind for kind in (PrincipalKind.STAFF, PrincipalKind.AUDITOR, PrincipalKind.SERVICE)
}
_SUBJECT: Final = re.compile(r"[!-~]{1,128}")
_EMAIL: Final = re.compile(r"[^@]+@[^@]+\.[^@]+")

_REASONS: Final[tuple[tuple[type[jwt.PyJWTError], str], ...]] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidIssuedAtError, "the token's issue time is not a past time"),
    (jwt.InvalidIssuerError, "the token is from another issuer"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.MissingRequiredClaimError, "the token lacks one of exp, iat, iss and aud"),
    (jwt.InvalidSignatureError, "the token's signature does not verify"),
)


@dataclass(frozen=True)
class ClaimNames:
    """The names of the claims with the bearer's id, roles and organisations."""

    subject: str = "sub"
    roles: str = "roles"
    organisations: str = "organisations"


class SigningKeys(Protocol):
    """The issuer's public keys."""

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key with an id, or None if the issuer does not have it. For None, return the only key.

        Raises:
            IdentityProviderUnavailable: the keys are not available now.
        """
        ...


class TokenVerifier:
    """Verifies tokens and returns their principals."""

    def __init__(
        self, keys: SigningKeys, *, issuer: str, audience: str, claims: ClaimNames | None = None
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._claims = claims or ClaimNames()

    def principal(self, token: str) -> Principal:
        """Return the principal of a token.

        Raises:
            InvalidCredentials: the token is invalid.
            IdentityProviderUnavailable: the issuer's keys are not available now.
        """
        return principal_of(self._verify(token), self._claims)

    def ticket(self, token: str) -> SignInTicket:
        """Return the ticket of a sign-in link. Its id is the token's `jti` claim.

        Raises:
            InvalidCredentials: the token is invalid, or has no id.
            IdentityProviderUnavailable: the issuer's keys are not available now.
        """
        claims = self._verify(token)
        ticket_id = claims.get("jti")
        if not isinstance(ticket_id, str) or not ticket_id:
            raise InvalidCredentials("the sign-in link has no id")
        return SignInTicket(ticket_id, principal_of(claims, self._claims))

    def _verify(self, token: str) -> Mapping[str, Any]:
        if len(token) > _TOKEN_LENGTH_MAX:
            raise InvalidCredentials("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise InvalidCredentials("the token is not a JWT") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise InvalidCredentials(f"the token is not signed with one of {', '.join(ALGORITHMS)}")
        key = self._keys.find(key_id)
        # The key decides the algorithm. A token's header must not choose how the token is verified.
        if key is None or key.algorithm_name != algorithm:
            raise InvalidCredentials("the issuer has no such key")
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise InvalidCredentials(_reason(error)) from None


class Authenticator:
    """Authenticates the callers of the API."""

    def __init__(self, tokens: TokenVerifier, keys: PostgresApiKeys) -> None:
        self._tokens = tokens
        self._keys = keys

    def __call__(self, credentials: Credentials) -> Principal:
        """Return the principal of the credentials.

        Raises:
            InvalidCredentials: the credentials are invalid.
            IdentityProviderUnavailable: the issuer's keys are not available now.
            psycopg.OperationalError: the database does not answer.
        """
        if credentials.key is not None:
            return self._keys.principal(credentials.key)
        return self._tokens.principal(credentials.token or "")


def principal_of(claims: Mapping[str, Any], names: ClaimNames) -> Principal:
    """Return the principal of verified claims. Unknown roles are ignored.

    Raises:
        InvalidCredentials: the subject, the roles or the organisations are invalid.
    """
    subject = claims.get(names.subject)
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise InvalidCredentials("the token's subject is not an id of 1 to 128 printable ASCII characters")
    if _EMAIL.fullmatch(subject):  # events would store it permanently
        raise InvalidCredentials("the token's subject is an email address; it must be an opaque id")
    kinds = _recognised_roles(claims.get(names.roles, []))
    if len(kinds) > 1:  # an auditor must not have the rights of another role
        raise InvalidCredentials("the token has more than one of the roles staff, auditor and service")
    memberships = _memberships(claims.get(names.organisations, {}))
    return (
        Principal(subject, kinds.pop(), {})
        if kinds
        else Principal(subject, PrincipalKind.PERSON, memberships)
    )


def _recognised_roles(roles: object) -> set[PrincipalKind]:
    if not isinstance(roles, list):
        raise InvalidCredentials("the token's roles are not a list")
    return {_ROLES[role] for role in roles if isinstance(role, str) and role in _ROLES}


def _memberships(organisations: object) -> dict[str, Role]:
    if not isinstance(organisations, dict):
        raise InvalidCredentials("the token's organisations are not an object")
    try:
        return {str(name): Role(role) for name, role in organisations.items()}
    except ValueError:
        raise InvalidCredentials("the token's role in an organisation is not admin or member") from None


def _reason(error: jwt.PyJWTError) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "the token is not valid")
