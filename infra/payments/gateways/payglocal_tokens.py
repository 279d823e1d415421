"""PayGlocal's tokens: what we send is encrypted for it and signed by us, what it sends is signed by it.

As in PayGlocal's own clients (github.com/PayGlocal-Technologies, `payglocal-python-sdk/jwt_helper.py`): a JWE
with RSA-OAEP-256 and A128CBC-HS256 as the body, and a JWS with RS256 over the SHA-256 of that body, or of the
path where there is no body. `iat` is milliseconds as text, `exp` a duration in milliseconds.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

TOKEN_LIFETIME_MS: Final = 300_000
JWE: Final = jwe.JWERegistry(algorithms=["RSA-OAEP-256", "A128CBC-HS256"], strict_check_header=False)
JWS: Final = jws.JWSRegistry(algorithms=["RS256"], strict_check_header=False)


class InvalidToken(Exception):
    """A token is not signed by whom it should be, or holds no JSON object."""


class InvalidKey(Exception):
    """A file holds no RSA key; the message says why, and nothing of the file."""


class PayGlocalTokens:
    """The merchant's end: its private key, and PayGlocal's public one."""

    def __init__(
        self,
        merchant_id: str,
        private_key: RSAKey,
        private_key_id: str,
        public_key: RSAKey,
        public_key_id: str,
    ) -> None:
        self._merchant_id = merchant_id
        self._private_key = private_key
        self._private_key_id = private_key_id
        self._public_key = public_key
        self._public_key_id = public_key_id

    def encrypt(self, payload: object, now_ms: int) -> str:
        """Return a body that only PayGlocal can read."""
        header = {
            "alg": "RSA-OAEP-256",
            "enc": "A128CBC-HS256",
            "kid": self._public_key_id,
            "issued-by": self._merchant_id,
            "is-digested": "true",
            "iat": str(now_ms),
            "exp": TOKEN_LIFETIME_MS,
        }
        return jwe.encrypt_compact(header, msgspec.json.encode(payload), self._public_key, registry=JWE)

    def sign(self, content: str, now_ms: int) -> dict[str, str]:
        """Return the headers that prove that a body, or a path, comes from us."""
        header = {
            "alg": "RS256",
            "kid": self._private_key_id,
            "x-gl-merchantId": self._merchant_id,
            "issued-by": self._merchant_id,
            "is-digested": "true",
            "x-gl-enc": "true",
        }
        claims = {
            "digest": b64encode(sha256(content.encode()).digest()).decode(),
            "digestAlgorithm": "SHA-256",
            "exp": TOKEN_LIFETIME_MS,
            "iat": str(now_ms),
        }
        return {
            "x-gl-token-external": jws.serialize_compact(
                header, msgspec.json.encode(claims), self._private_key, registry=JWS
            ),
            "x-gl-merchantid": self._merchant_id,
            "x-gl-kid": self._private_key_id,
        }

    def verify(self, token: str) -> dict[str, Any]:
        """Return what a token of PayGlocal's says.

        Raises:
            InvalidToken: it is not signed by PayGlocal.
        """
        return verify_token(token, self._public_key)


def verify_token(token: str, public_key: RSAKey) -> dict[str, Any]:
    """Return the JSON object that the holder of a key has signed.

    Raises:
        InvalidToken: another one has, or it is none.
    """
    try:
        payload = jws.deserialize_compact(token, public_key, registry=JWS).payload
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (JoseError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidToken(type(error).__name__) from None


def read_key(path: Path) -> RSAKey:
    """Return the RSA key of a PEM file.

    Raises:
        InvalidKey: it cannot be read, or is none.
    """
    try:
        return RSAKey.import_key(path.read_bytes())
    except OSError as error:
        raise InvalidKey(f"{path} cannot be read: {error.strerror}") from None
    except (JoseError, ValueError) as error:
        raise InvalidKey(f"{path} holds no RSA key in PEM: {type(error).__name__}") from None
