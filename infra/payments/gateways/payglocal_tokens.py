"""PayGlocal's tokens. Requests are encrypted for PayGlocal and signed by us; PayGlocal signs its tokens.

The format follows PayGlocal's clients (github.com/PayGlocal-Technologies,
`payglocal-python-sdk/jwt_helper.py`): the body is a JWE with RSA-OAEP-256 and A128CBC-HS256. A JWS with RS256
signs the SHA-256 of that body, or of the path if the request has no body. `iat` is milliseconds as text,
`exp` is a duration in milliseconds.
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
    """A token has a wrong signature, or does not hold a JSON object."""


class InvalidKey(Exception):
    """A file does not hold an RSA key. The message gives the reason and quotes nothing of the file."""


class PayGlocalTokens:
    """The merchant's side: its private key and PayGlocal's public key."""

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
        """Return the headers that sign a body, or a path."""
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
        """Return the claims of a token from PayGlocal.

        Raises:
            InvalidToken: PayGlocal did not sign it.
        """
        return verify_token(token, self._public_key)


def verify_token(token: str, public_key: RSAKey) -> dict[str, Any]:
    """Return the JSON object in a token that the holder of a key signed.

    Raises:
        InvalidToken: the signature or the token is invalid.
    """
    try:
        payload = jws.deserialize_compact(token, public_key, registry=JWS).payload
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (JoseError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidToken(type(error).__name__) from None


def read_key(path: Path) -> RSAKey:
    """Return the RSA key of a PEM file.

    Raises:
        InvalidKey: the file cannot be read, or does not hold an RSA key.
    """
    try:
        return RSAKey.import_key(path.read_bytes())
    except OSError as error:
        raise InvalidKey(f"{path} cannot be read: {error.strerror}") from None
    except (JoseError, ValueError) as error:
        raise InvalidKey(f"{path} is not a PEM file with an RSA key: {type(error).__name__}") from None
