"""The issuer's public keys: fetched from the issuer, cached, and fetched again when they change."""

from __future__ import annotations

import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from threading import Lock
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from domain.identity.principals import IdentityProviderUnavailable
from infra.identity.tokens import ALGORITHMS
from infra.url_safety import is_safe

CACHE_FRESH_S: Final = 600.0
"""Cached keys are used without a new fetch for this time. A withdrawn key is refused after it."""
CACHE_USABLE_S: Final = 86_400.0
"""Cached keys are used for this time while the issuer does not answer."""
FETCH_INTERVAL_MIN_S: Final = 30.0
_RESPONSE_TIMEOUT_S: Final = 5.0
_DOCUMENT_BYTES_MAX: Final = 1_048_576
_RSA_BITS_MIN: Final = 2_048

Keys = Mapping[str | None, jwt.PyJWK]
"""Keys by key id. A single key is also stored under None."""

log = logging.getLogger(__name__)


class InvalidKeySet(Exception):
    """The issuer's key set cannot be used. The message gives the reason."""


class StaticKeys:
    """Keys that never change."""

    def __init__(self, document: object) -> None:
        self._keys = read_keys(document)

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key with an id, or None."""
        return self._keys.get(key_id)


class RemoteKeys:
    """Keys that `fetch` gets from the issuer, cached.

    An unknown key id triggers a fetch at once, but at most one per `FETCH_INTERVAL_MIN_S`. Otherwise tokens
    with invented ids could flood the issuer.
    """

    def __init__(
        self, fetch: Callable[[], object], monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._monotonic_s = monotonic_s
        self._lock = Lock()
        self._keys: Keys = {}
        self._fetched_at_s = -CACHE_USABLE_S
        self._last_fetch_attempt_s = -FETCH_INTERVAL_MIN_S

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key with an id, or None if the issuer does not have it.

        Raises:
            IdentityProviderUnavailable: the cached keys are too old, and the issuer does not answer.
        """
        if key_id not in self._keys or self._age_s() >= CACHE_USABLE_S:
            self._refresh(wait=True)
        elif self._age_s() > CACHE_FRESH_S:
            self._refresh(wait=False)
        if self._age_s() >= CACHE_USABLE_S:
            raise IdentityProviderUnavailable("the token issuer's keys cannot be fetched")
        return self._keys.get(key_id)

    def _age_s(self) -> float:
        return self._monotonic_s() - self._fetched_at_s

    def _refresh(self, *, wait: bool) -> None:
        """Fetch the keys, unless the last attempt was too recent. Without `wait`, skip a concurrent fetch."""
        if not self._lock.acquire(blocking=wait):
            return
        try:
            now_s = self._monotonic_s()
            if now_s - self._last_fetch_attempt_s < FETCH_INTERVAL_MIN_S:
                return
            self._last_fetch_attempt_s = now_s
            self._keys = read_keys(self._fetch())
            self._fetched_at_s = now_s
        except (OSError, HTTPException, ValueError, InvalidKeySet) as error:
            log.warning("the token issuer's keys cannot be fetched: %s", error)
        finally:
            self._lock.release()


def fetch_keys(issuer: str, jwks_url: str | None = None) -> object:
    """Return the JWKS of an issuer. Without `jwks_url`, find it by OpenID Connect discovery.

    Raises:
        OSError, HTTPException: the issuer does not answer.
        ValueError, InvalidKeySet: the response is invalid.
    """
    if jwks_url is None:
        metadata = _get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(metadata, dict) or metadata.get("issuer") != issuer:
            raise InvalidKeySet("the discovery document belongs to another issuer")
        jwks_url = str(metadata.get("jwks_uri"))
    return _get(jwks_url)


def read_keys(document: object) -> Keys:
    """Return the keys of a JWKS that may sign tokens. Ignore the others.

    Raises:
        InvalidKeySet: the document is not a JWKS, or has no such key.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InvalidKeySet("the document is not a key set")
    found = [key for key in map(_usable, entries) if key is not None]
    if not found:
        raise InvalidKeySet(f"the key set has no key for {', '.join(ALGORITHMS)}")
    keys: dict[str | None, jwt.PyJWK] = {key.key_id: key for key in found}
    if len(found) == 1:
        keys[None] = found[0]
    else:
        keys.pop(None, None)
    return keys


def _usable(entry: Any) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK.from_dict(entry)
    except jwt.PyJWTError:
        return None
    if key.algorithm_name not in ALGORITHMS:
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _RSA_BITS_MIN:
        return None
    return key


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Refuse: a checked URL must not redirect to an unchecked one."""


_opener: Final = urllib.request.build_opener(_NoRedirects)


def _get(url: str) -> object:
    if not is_safe(url):
        raise InvalidKeySet(f"{url} is not an https URL")
    with _opener.open(url, timeout=_RESPONSE_TIMEOUT_S) as response:
        body = response.read(_DOCUMENT_BYTES_MAX + 1)
    if len(body) > _DOCUMENT_BYTES_MAX:
        raise InvalidKeySet(f"the document at {url} is too large")
    return msgspec.json.decode(body)
