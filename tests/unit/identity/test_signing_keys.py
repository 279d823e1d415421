"""The issuer's keys: fetched when needed, cached, and updated when the issuer changes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.identity.principals import (
    IdentityProviderUnavailable,
    InvalidCredentials,
    PrincipalKind,
)
from infra.identity.signing_keys import (
    CACHE_FRESH_S,
    CACHE_USABLE_S,
    FETCH_INTERVAL_MIN_S,
    InvalidKeySet,
    RemoteKeys,
    fetch_keys,
)
from infra.service.composition import token_verifier
from infra.settings import Settings
from infra.url_safety import is_safe
from tests.unit.identity.test_tokens import published


def key_set(*names: str) -> dict[str, Any]:
    return {"keys": [published("EdDSA", Ed25519PrivateKey.generate(), name) for name in names]}


class Issuer:
    """A fake issuer that publishes the given keys, and counts requests."""

    def __init__(self) -> None:
        self.document: Any = key_set("first", "second")
        self.asked = 0
        self.now_s = 1_000.0
        self.keys = RemoteKeys(self.fetch, lambda: self.now_s)

    def fetch(self) -> object:
        self.asked += 1
        if isinstance(self.document, Exception):
            raise self.document
        return self.document


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def test_keys_are_fetched_once(issuer: Issuer) -> None:
    assert issuer.asked == 0
    for _ in range(3):
        assert issuer.keys.find("first")
        assert issuer.keys.find("second")
    assert issuer.asked == 1


def test_a_new_key_is_found_immediately(issuer: Issuer) -> None:
    assert issuer.keys.find("first")
    issuer.now_s += FETCH_INTERVAL_MIN_S
    issuer.document = key_set("second", "third")
    assert issuer.keys.find("third")
    assert issuer.asked == 2
    assert issuer.keys.find("first") is None


def test_unknown_key_ids_do_not_flood_the_issuer(issuer: Issuer) -> None:
    assert issuer.keys.find("first")
    for number in range(100):
        assert issuer.keys.find(f"invented-{number}") is None
    issuer.now_s += FETCH_INTERVAL_MIN_S
    for number in range(100):
        assert issuer.keys.find(f"invented-{number}") is None
    assert issuer.asked == 2


def test_a_withdrawn_key_is_refused_after_some_time(issuer: Issuer) -> None:
    assert issuer.keys.find("first")
    issuer.document = key_set("second", "third")
    issuer.now_s += CACHE_FRESH_S
    assert issuer.keys.find("first")
    issuer.now_s += 1
    assert issuer.keys.find("first") is None


@pytest.mark.parametrize(
    "failure", [OSError("gone"), {"keys": []}, InvalidKeySet("x"), ValueError("no JSON")]
)
def test_the_last_keys_are_used_for_a_day_without_the_issuer(issuer: Issuer, failure: Any) -> None:
    assert issuer.keys.find("first")
    issuer.document = failure
    issuer.now_s += CACHE_USABLE_S - 1
    assert issuer.keys.find("first")
    issuer.now_s += 1
    with pytest.raises(IdentityProviderUnavailable):
        issuer.keys.find("first")


def test_a_slow_issuer_delays_only_requests_that_need_it() -> None:
    issuer, asked, may_answer = Issuer(), Event(), Event()

    def fetch() -> object:
        if issuer.asked:
            asked.set()
            assert may_answer.wait(10)
        return issuer.fetch()

    keys = RemoteKeys(fetch, lambda: issuer.now_s)
    assert keys.find("first")
    issuer.now_s += CACHE_FRESH_S + 1
    with ThreadPoolExecutor(1) as threads:
        refreshing = threads.submit(keys.find, "first")
        assert asked.wait(10)
        assert keys.find("first")  # immediately, with the cached key
        assert not refreshing.done()
        may_answer.set()
        assert refreshing.result(10)
    assert issuer.asked == 2


def test_without_keys_no_caller_can_be_identified(issuer: Issuer) -> None:
    keys, issuer.document = issuer.document, OSError("not up yet")
    for _ in range(3):
        with pytest.raises(IdentityProviderUnavailable):
            issuer.keys.find("first")
    assert issuer.asked == 1
    issuer.document = keys
    issuer.now_s += FETCH_INTERVAL_MIN_S
    assert issuer.keys.find("first")


@pytest.fixture
def site() -> Iterator[dict[str, Any]]:
    """A web site on loopback: its pages by path. A text redirects to another URL; "url" is the site's own
    URL.
    """
    pages: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            if isinstance(page, str):
                self.send_response(302)
                self.send_header("Location", page)
                self.end_headers()
                return
            self.send_response(200 if page else 404)
            self.end_headers()
            self.wfile.write(json.dumps(page).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        pages["url"] = f"http://127.0.0.1:{server.server_port}"
        yield pages
        server.shutdown()
        thread.join()


def test_keys_are_discovered(site: dict[str, Any]) -> None:
    site["/keys"] = key_set("first")
    issuer = f"{site['url']}/realm"
    site["/realm/.well-known/openid-configuration"] = {"issuer": issuer, "jwks_uri": f"{site['url']}/keys"}
    assert fetch_keys(issuer) == site["/keys"]
    assert fetch_keys("https://elsewhere.example", f"{site['url']}/keys") == site["/keys"]


def test_discovery_of_another_issuer_is_refused(site: dict[str, Any]) -> None:
    site["/.well-known/openid-configuration"] = {
        "issuer": "https://other.example",
        "jwks_uri": f"{site['url']}/keys",
    }
    with pytest.raises(InvalidKeySet, match="another issuer"):
        fetch_keys(site["url"])


def test_missing_pages_and_redirects(site: dict[str, Any]) -> None:
    site["/moved"] = f"{site['url']}/keys"
    site["/keys"] = key_set("first")
    for path in ("/none", "/moved"):
        with pytest.raises(OSError, match=r"404|302"):
            fetch_keys("https://issuer.example", site["url"] + path)


def test_the_settings_name_the_issuer(site: dict[str, Any]) -> None:
    first, second = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    issuer = f"{site['url']}/realm"
    site["/realm/.well-known/openid-configuration"] = {"issuer": issuer, "jwks_uri": f"{site['url']}/keys"}
    site["/keys"] = {"keys": [published("EdDSA", first, "first")]}
    verifier = token_verifier(
        Settings(oidc_issuer=issuer, oidc_audience="credits", oidc_roles_claim="groups")
    )

    def token(key: Ed25519PrivateKey, key_id: str) -> str:
        now = datetime.now(UTC)
        claims = {"iss": issuer, "aud": "credits", "sub": "s-1", "groups": ["staff"], "iat": now}
        claims["exp"] = now + timedelta(minutes=1)
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": key_id})

    assert verifier.principal(token(first, "first")).kind is PrincipalKind.STAFF
    with pytest.raises(InvalidCredentials, match="no such key"):
        verifier.principal(token(second, "second"))


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://issuer.example/keys", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://localhost/keys", True),
        ("http://issuer.example/keys", False),
        ("http://127.0.0.1.issuer.example/keys", False),
        ("file:///etc/passwd", False),
        ("https:///keys", False),
        ("", False),
    ],
)
def test_keys_are_fetched_over_tls_or_from_this_machine(url: str, safe: bool) -> None:
    assert is_safe(url) is safe
    if not safe:
        with pytest.raises(InvalidKeySet):
            fetch_keys("https://issuer.example", url)
