"""A token issuer for local use: one key pair in a folder, no server.

Anyone who can read the folder can create tokens for any user. So the service accepts them on loopback only.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from infra.embedded.errors import EmbeddedServerError
from infra.embedded.files import exclusive, write_atomically
from infra.identity.embedded_issuer import AUDIENCE, ISSUER, TICKET_AUDIENCE

TOKEN_LIFETIME: Final = timedelta(hours=12)
TICKET_LIFETIME: Final = timedelta(hours=1)
_KEY: Final = "issuer-key.pem"
_JWKS_FILE: Final = "issuer-jwks.json"
_LOCK_TIMEOUT_S: Final = 10.0


class EmbeddedIssuer:
    """The issuer of a data directory. Its key is created on first use. Only the current user can read it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def start(self) -> Path:
        """Create the key pair if it is missing, write the public keys to a file, and return its path.

        Raises:
            EmbeddedServerError: the key is invalid.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        with exclusive(self._data_dir / "issuer.lock", timeout_seconds=_LOCK_TIMEOUT_S):
            if not (self._data_dir / _KEY).exists():
                write_atomically(self._data_dir / _KEY, _pem(Ed25519PrivateKey.generate()))
            write_atomically(self.jwks_path, json.dumps(self.jwks()))
        return self.jwks_path

    @property
    def exists(self) -> bool:
        """Whether the key exists."""
        return (self._data_dir / _KEY).exists()

    @property
    def jwks_path(self) -> Path:
        """Path of the file with the public keys."""
        return self._data_dir / _JWKS_FILE

    def jwks(self) -> dict[str, object]:
        """Return the public keys as a JWKS."""
        key = self._key()
        public = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        return {"keys": [{**public, "use": "sig", "alg": "EdDSA", "kid": _key_id(key)}]}

    def token(
        self,
        subject: str,
        *,
        roles: Sequence[str] = (),
        organisations: Mapping[str, str] | None = None,
        now: datetime | None = None,
        lifetime: timedelta = TOKEN_LIFETIME,
    ) -> str:
        """Return a token for a subject with global roles and a role per organisation."""
        return self._sign(AUDIENCE, _bearer(subject, roles, organisations), now, lifetime)

    def ticket(
        self,
        subject: str,
        *,
        roles: Sequence[str] = (),
        organisations: Mapping[str, str] | None = None,
        now: datetime | None = None,
        lifetime: timedelta = TICKET_LIFETIME,
    ) -> str:
        """Return the ticket of a sign-in link. It opens one session."""
        return self._sign(TICKET_AUDIENCE, _bearer(subject, roles, organisations), now, lifetime)

    def _sign(
        self, audience: str, bearer: Mapping[str, object], now: datetime | None, lifetime: timedelta
    ) -> str:
        key = self._key()
        issued_at = now or datetime.now(UTC)
        claims = {
            **bearer,
            "iss": ISSUER,
            "aud": audience,
            "iat": issued_at,
            "exp": issued_at + lifetime,
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": _key_id(key)})

    def _key(self) -> Ed25519PrivateKey:
        path = self._data_dir / _KEY
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise EmbeddedServerError(f"other users can read {path}: remove it and start again")
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except ValueError as error:
            raise EmbeddedServerError(f"{path} is not a private key: remove it and start again") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise EmbeddedServerError(f"{path} is not an Ed25519 key: remove it and start again")
        return key


def _bearer(subject: str, roles: Sequence[str], organisations: Mapping[str, str] | None) -> dict[str, object]:
    return {"sub": subject, "roles": list(roles), "organisations": dict(organisations or {})}


def _pem(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _key_id(key: Ed25519PrivateKey) -> str:
    return sha256(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
