"""The issuer's public keys: where they are published, kept a while, and fetched again when they change."""

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
"""How long keys are believed unseen: a key that the issuer withdraws is refused after this time."""
CACHE_USABLE_S: Final = 86_400.0
"""How long the last keys serve while the issuer does not answer."""
FETCH_INTERVAL_MIN_S: Final = 30.0
_RESPONSE_TIMEOUT_S: Final = 5.0
_DOCUMENT_BYTES_MAX: Final = 1_048_576
_RSA_BITS_MIN: Final = 2_048

Keys = Mapping[str | None, jwt.PyJWK]
"""By key id; where there is only one key, it is found without an id too."""

log = logging.getLogger(__name__)


class InvalidKeySet(Exception):
    """What an issuer published cannot be used; the message says why."""


class StaticKeys:
    """Keys that never change."""

    def __init__(self, document: object) -> None:
        self._keys = read_keys(document)

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key of an id."""
        return self._keys.get(key_id)


class RemoteKeys:
    """Keys that `fetch` gets from the issuer, cached. An id that is not known is asked for at once, but not
    more often than `FETCH_INTERVAL_MIN_S`: tokens with invented ids would otherwise be a way to flood it."""

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
        """Return the key of an id, or None if the issuer has none such.

        Raises:
            IdentityProviderUnavailable: no keys that can still be believed, and the issuer does not answer.
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
        """Fetch the keys, unless that was tried a moment ago. Who can go on with old ones does not wait."""
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
    """Return the JWKS of an issuer, found by OpenID Connect discovery unless its address is given.

    Raises:
        OSError, HTTPException: it does not answer.
        ValueError, InvalidKeySet: its answer is not what it should be.
    """
    if jwks_url is None:
        about = _get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(about, dict) or about.get("issuer") != issuer:
            raise InvalidKeySet("the discovery document is of another issuer")
        jwks_url = str(about.get("jwks_uri"))
    return _get(jwks_url)


def read_keys(document: object) -> Keys:
    """Return the keys of a JWKS that tokens may be signed with; others in it are passed over.

    Raises:
        InvalidKeySet: it is no JWKS, or has no such key.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InvalidKeySet("it is no key set")
    found = [key for key in map(_usable, entries) if key is not None]
    if not found:
        raise InvalidKeySet(f"it has no key for {', '.join(ALGORITHMS)}")
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
        """Refuse: an address that was checked must not lead to one that was not."""


_opener: Final = urllib.request.build_opener(_NoRedirects)


def _get(url: str) -> object:
    if not is_safe(url):
        raise InvalidKeySet(f"{url} is not an https address")
    with _opener.open(url, timeout=_RESPONSE_TIMEOUT_S) as answer:
        body = answer.read(_DOCUMENT_BYTES_MAX + 1)
    if len(body) > _DOCUMENT_BYTES_MAX:
        raise InvalidKeySet(f"{url} is too large")
    return msgspec.json.decode(body)
