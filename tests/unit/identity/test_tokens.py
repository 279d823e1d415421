"""Bearer tokens: valid ones, and every way to be invalid."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as new_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from domain.identity.principals import (
    Credentials,
    InvalidCredentials,
    Principal,
    PrincipalKind,
    Role,
)
from infra.identity.signing_keys import InvalidKeySet, StaticKeys, read_keys
from infra.identity.tokens import LEEWAY_S, ClaimNames, TokenVerifier

ISSUER = "https://issuer.example/"
AUDIENCE = "credits"
PRIVATE = {
    "RS256": new_rsa_key(65_537, 2_048),
    "ES256": new_ec_key(SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}


def published(algorithm: str, key: Any, key_id: str) -> dict[str, Any]:
    """Return the public half of a key, as issuers publish it."""
    maker = jwt.get_algorithm_by_name(algorithm)
    return {**maker.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig"}


KEYS = {"keys": [published(algorithm, key, algorithm) for algorithm, key in PRIVATE.items()]}


def claims(**changes: Any) -> dict[str, Any]:
    """Return valid claims with changes; a change to None removes a claim."""
    now = datetime.now(UTC)
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "u-17",
        "iat": now,
        "exp": now + timedelta(minutes=5),
        "organisations": {"org-1": "admin", "org-2": "member"},
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(given: dict[str, Any], algorithm: str = "EdDSA", key_id: str | None = None) -> str:
    headers = {"kid": key_id or algorithm}
    return jwt.encode(given, PRIVATE[algorithm], algorithm=algorithm, headers=headers)


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@pytest.fixture
def verifier() -> TokenVerifier:
    return TokenVerifier(StaticKeys(KEYS), issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("algorithm", list(PRIVATE))
def test_a_valid_token_identifies_its_bearer(verifier: TokenVerifier, algorithm: str) -> None:
    memberships = {"org-1": Role.ADMIN, "org-2": Role.MEMBER}
    principal = verifier.principal(signed(claims(), algorithm))
    assert principal == Principal("u-17", PrincipalKind.PERSON, memberships)
    assert principal.belongs_to_organisations


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": datetime.now(UTC) - timedelta(days=1)}, "has expired"),
        ({"nbf": datetime.now(UTC) + timedelta(days=1)}, "is not valid yet"),
        ({"iat": datetime.now(UTC) + timedelta(days=1)}, "is not valid yet"),
        ({"iss": "https://issuer.example"}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": None}, "lacks one of"),
        ({"iss": None}, "lacks one of"),
        ({"exp": None}, "lacks one of"),
        ({"iat": None}, "lacks one of"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": "two words"}, "subject"),
        ({"sub": "x" * 129}, "subject"),
        ({"sub": "jane.doe@example.com"}, "email address"),
        ({"roles": "staff"}, "roles are not a list"),
        ({"roles": ["staff", "auditor"]}, "more than one of the roles"),
        ({"organisations": ["org-1"]}, "organisations are not an object"),
        ({"organisations": {"org-1": "owner"}}, "is not admin or member"),
        ({"organisations": {"org-1": None}}, "is not admin or member"),
    ],
)
def test_invalid_claims(verifier: TokenVerifier, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidCredentials, match=reason):
        verifier.principal(signed(claims(**changes)))


def test_clocks_may_differ_a_little(verifier: TokenVerifier) -> None:
    a_little = timedelta(seconds=LEEWAY_S - 10)
    now = datetime.now(UTC)
    assert verifier.principal(signed(claims(exp=now - a_little, iat=now - timedelta(hours=1))))
    assert verifier.principal(signed(claims(nbf=now + a_little, iat=now + a_little)))


def test_an_unsigned_token_is_refused(verifier: TokenVerifier) -> None:
    with pytest.raises(InvalidCredentials, match="not signed with one of"):
        verifier.principal(jwt.encode(claims(), None, algorithm="none", headers={"kid": "EdDSA"}))


@pytest.mark.parametrize(("algorithm", "digest"), [("HS256", "sha256"), ("HS512", "sha512")])
def test_a_public_key_is_never_used_as_a_secret(verifier: TokenVerifier, algorithm: str, digest: str) -> None:
    secret = PRIVATE["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _, payload, _ = signed(claims(), "RS256").split(".")
    head = encoded(json.dumps({"alg": algorithm, "kid": "RS256"}).encode())
    signature = encoded(hmac.digest(secret, f"{head}.{payload}".encode(), digest))
    with pytest.raises(InvalidCredentials, match="not signed with one of"):
        verifier.principal(f"{head}.{payload}.{signature}")


def test_the_key_determines_the_algorithm(verifier: TokenVerifier) -> None:
    with pytest.raises(InvalidCredentials, match="no such key"):
        verifier.principal(signed(claims(), "EdDSA", key_id="RS256"))


def test_another_key_of_the_same_id_does_not_verify(verifier: TokenVerifier) -> None:
    forged = jwt.encode(claims(), Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "EdDSA"})
    with pytest.raises(InvalidCredentials, match="signature does not verify"):
        verifier.principal(forged)


def test_changed_claims_do_not_verify(verifier: TokenVerifier) -> None:
    head, _, signature = signed(claims()).split(".")
    payload = json.dumps({"sub": "u-17", "roles": ["staff"]}).encode()
    body = encoded(payload)
    with pytest.raises(InvalidCredentials, match="signature does not verify"):
        verifier.principal(f"{head}.{body}.{signature}")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ü", "..", "x" * 20_000, "{}.{}.{}"])
def test_an_invalid_token(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(InvalidCredentials):
        verifier.principal(token)


@pytest.mark.parametrize("kind", [PrincipalKind.STAFF, PrincipalKind.AUDITOR, PrincipalKind.SERVICE])
def test_a_role_determines_the_kind_of_principal(verifier: TokenVerifier, kind: PrincipalKind) -> None:
    token = signed(claims(roles=["offline_access", kind.value, 17]))
    assert verifier.principal(token) == Principal("u-17", kind, {})


@pytest.mark.parametrize("roles", [[], ["person"], ["key"], ["Staff"], ["admin"]])
def test_other_roles_are_ignored(verifier: TokenVerifier, roles: list[str]) -> None:
    assert verifier.principal(signed(claims(roles=roles))).kind is PrincipalKind.PERSON


def test_claims_have_the_configured_names() -> None:
    names = ClaimNames(subject="oid", roles="https://credits.example/roles", organisations="orgs")
    verifier = TokenVerifier(StaticKeys(KEYS), issuer=ISSUER, audience=AUDIENCE, claims=names)
    given = claims(oid="u-99", orgs={"org-9": "member"}, roles=["staff"])
    assert verifier.principal(signed(given)) == Principal(
        "u-99", PrincipalKind.PERSON, {"org-9": Role.MEMBER}
    )


def test_one_key_needs_no_id() -> None:
    keys = {"keys": [published("ES256", PRIVATE["ES256"], "only")]}
    verifier = TokenVerifier(StaticKeys(keys), issuer=ISSUER, audience=AUDIENCE)
    assert verifier.principal(jwt.encode(claims(), PRIVATE["ES256"], algorithm="ES256")).subject == "u-17"


def test_keys_for_other_uses_are_skipped() -> None:
    others = [
        {**published("ES256", PRIVATE["ES256"], "encryption"), "use": "enc"},
        published("RS256", new_rsa_key(65_537, 1_024), "short"),  # noqa: S505 - it is refused
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"},
        {"kty": "RSA", "kid": "half"},
        "nonsense",
    ]
    keys = read_keys({"keys": [*others, published("EdDSA", PRIVATE["EdDSA"], "good")]})
    assert set(keys) == {"good", None}
    with pytest.raises(InvalidKeySet):
        read_keys({"keys": others})


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": []}])
def test_an_invalid_key_set(document: object) -> None:
    with pytest.raises(InvalidKeySet):
        read_keys(document)


def test_credentials_are_never_shown() -> None:
    assert "secret" not in repr(Credentials(token="secret-1", key="secret-2"))  # noqa: S106
