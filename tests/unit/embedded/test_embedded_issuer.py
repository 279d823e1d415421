"""The embedded issuer: its key, and tokens that the service's verifier accepts."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from domain.identity.principals import InvalidCredentials, PrincipalKind, Role
from infra.embedded.errors import EmbeddedServerError
from infra.embedded.issuer import TOKEN_LIFETIME, EmbeddedIssuer
from infra.identity.embedded_issuer import AUDIENCE, ISSUER
from infra.identity.signing_keys import StaticKeys
from infra.identity.tokens import TokenVerifier


def verifier_of(issuer: EmbeddedIssuer) -> TokenVerifier:
    keys = StaticKeys(msgspec.json.decode(issuer.start().read_bytes()))
    return TokenVerifier(keys, issuer=ISSUER, audience=AUDIENCE)


def test_its_tokens_are_verified(tmp_path: Path) -> None:
    issuer = EmbeddedIssuer(tmp_path / "data")
    verifier = verifier_of(issuer)
    assert verifier.principal(issuer.token("s-1", roles=["staff"])).kind is PrincipalKind.STAFF
    person = verifier.principal(issuer.token("u-1", organisations={"org-1": "admin"}))
    assert person.memberships == {"org-1": Role.ADMIN}


def test_its_key_is_persistent_and_private(tmp_path: Path) -> None:
    issuer = EmbeddedIssuer(tmp_path)
    assert not issuer.exists
    verifier = verifier_of(issuer)
    again = EmbeddedIssuer(tmp_path)
    again.start()
    assert verifier.principal(again.token("u-1")).subject == "u-1"
    assert stat.S_IMODE((tmp_path / "issuer-key.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in issuer.jwks_path.read_text()
    assert '"d"' not in issuer.jwks_path.read_text()


def test_its_tokens_expire(tmp_path: Path) -> None:
    issuer = EmbeddedIssuer(tmp_path)
    verifier = verifier_of(issuer)
    long_ago = datetime.now(UTC) - TOKEN_LIFETIME - timedelta(minutes=5)
    with pytest.raises(InvalidCredentials, match="expired"):
        verifier.principal(issuer.token("u-1", now=long_ago))


def test_another_data_directory_is_another_issuer(tmp_path: Path) -> None:
    verifier = verifier_of(EmbeddedIssuer(tmp_path / "one"))
    other = EmbeddedIssuer(tmp_path / "other")
    other.start()
    with pytest.raises(InvalidCredentials):
        verifier.principal(other.token("u-1"))


def test_a_readable_or_invalid_key_is_refused(tmp_path: Path) -> None:
    issuer = EmbeddedIssuer(tmp_path)
    issuer.start()
    key = tmp_path / "issuer-key.pem"
    key.chmod(0o644)
    with pytest.raises(EmbeddedServerError, match="other users can read"):
        issuer.token("u-1")
    key.chmod(0o600)
    key.write_text("nonsense")
    with pytest.raises(EmbeddedServerError, match="not a private key"):
        issuer.token("u-1")
