"""API keys: issued once, shown once, valid for reads of one organisation, and revoked immediately."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import psycopg
import pytest

from domain.credits.audit_events import ApiKeyIssued, ApiKeyRevoked
from domain.identity.principals import API_KEYS_MAX
from domain.shared.errors import StoreUnavailable
from infra.identity.api_keys import PostgresApiKeys
from tests.histories import history
from tests.integration.api.ledger_api import STAFF, LedgerApi, invalid_fields, problem_of


@pytest.fixture
def keys(organisation: str) -> str:
    return f"{organisation}/api-keys"


@pytest.fixture
def issued(client: Any, keys: str) -> dict[str, Any]:
    """A new key, as shown to the user who issued it."""
    response = client.post(keys, json={"name": "nightly export"})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


@pytest.fixture
def program(ledger_api: LedgerApi, issued: dict[str, Any]) -> Iterator[Any]:
    """A client with the key."""
    with ledger_api.client(headers={"X-API-Key": issued["key"]}) as program:
        yield program


def test_a_key_reads_its_organisation(program: Any, organisation: str, ledger_api: LedgerApi) -> None:
    ledger_api.catch_up()
    assert program.get(f"{organisation}/balance").json()["balance"] == 200


def test_a_key_is_shown_once_and_kept_as_a_digest(
    client: Any, keys: str, issued: dict[str, Any], ledger_api: LedgerApi
) -> None:
    listed = client.get(keys)
    assert issued["key"].startswith(f"clk_{issued['key_id']}_")
    assert listed.json() == {"api_keys": [{n: v for n, v in issued.items() if n != "key"}]}
    with psycopg.connect(ledger_api.conninfo) as connection:
        (row,) = connection.execute(
            "SELECT digest, keys::text FROM ledger.api_keys AS keys WHERE key_id = %s", [issued["key_id"]]
        ).fetchall()
    assert row[0] == sha256(issued["key"].encode()).digest()
    assert issued["key"].rpartition("_")[2] not in row[1]


def test_the_last_use_is_stored_to_the_minute(
    program: Any, client: Any, organisation: str, issued: dict[str, Any], ledger_api: LedgerApi
) -> None:
    def last_used_at() -> Any:
        (listed,) = client.get(f"{organisation}/api-keys").json()["api_keys"]
        return listed["last_used_at"]

    assert last_used_at() is None
    program.get(f"{organisation}/balance")
    first = last_used_at()
    assert datetime.now(UTC) - datetime.fromisoformat(first) < timedelta(minutes=1)
    program.get(f"{organisation}/balance")
    assert last_used_at() == first

    with psycopg.connect(ledger_api.conninfo, autocommit=True) as connection:

        class SingleConnection:
            def __enter__(self) -> psycopg.Connection[Any]:
                return connection

            def __exit__(self, *_: object) -> None:
                pass

        a_minute_later = datetime.fromisoformat(first) + timedelta(minutes=1)
        PostgresApiKeys(SingleConnection, lambda: a_minute_later, ledger_api.services.commands).principal(
            issued["key"]
        )
    assert datetime.fromisoformat(last_used_at()) == a_minute_later


def test_a_revoked_key_is_refused_at_once(
    program: Any, client: Any, keys: str, organisation: str, issued: dict[str, Any]
) -> None:
    program.get(f"{organisation}/balance")
    revoked = client.delete(f"{keys}/{issued['key_id']}")
    assert (revoked.status_code, revoked.content) == (204, b"")
    refused = program.get(f"{organisation}/balance")
    assert refused.status_code == 401
    assert problem_of(refused) == "credentials-refused"
    assert client.get(keys).json() == {"api_keys": []}
    again = client.delete(f"{keys}/{issued['key_id']}")
    assert again.status_code == 404
    assert problem_of(again) == "api-key-unknown"


def test_the_users_who_issue_and_revoke_a_key_are_stored(
    ledger_api: LedgerApi, keys: str, organisation: str
) -> None:
    organisation_id = organisation.rpartition("/")[2]
    admin = ledger_api.bearer("u-admin", organisations={organisation_id: "admin"})
    with ledger_api.client(headers=admin) as client:
        key_id = client.post(keys, json={"name": "x"}).json()["key_id"]
        assert client.delete(f"{keys}/{key_id}").status_code == 204
    with psycopg.connect(ledger_api.conninfo) as connection:
        kept = connection.execute(
            "SELECT created_by, revoked_by, revoked_at >= created_at FROM ledger.api_keys WHERE key_id = %s",
            [key_id],
        ).fetchall()
    assert kept == [("u-admin", "u-admin", True)]


def test_issuing_and_revoking_a_key_are_events(
    ledger_api: LedgerApi, keys: str, organisation: str, client: Any
) -> None:
    organisation_id = organisation.rpartition("/")[2]
    admin = ledger_api.bearer("u-admin", organisations={organisation_id: "admin"})
    with ledger_api.client(headers=admin) as by_admin:
        key_id = by_admin.post(keys, json={"name": "SECRET name"}).json()["key_id"]
    assert client.delete(f"{keys}/{key_id}").status_code == 204
    assert client.delete(f"{keys}/{key_id}").status_code == 404  # and has no event
    *_, issued, revoked = history(ledger_api.conninfo, organisation_id)
    assert isinstance(issued, ApiKeyIssued)
    assert isinstance(revoked, ApiKeyRevoked)
    assert (issued.key_id, issued.actor) == (key_id, "u-admin")
    assert (revoked.key_id, revoked.actor) == (key_id, STAFF)


def test_a_key_whose_event_cannot_be_recorded_is_not_issued(
    ledger_api: LedgerApi, keys: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the connection is lost")

    monkeypatch.setattr(ledger_api.services.ledger.events.recorder, "insert_events", unable)
    assert client.post(keys, json={"name": "x"}).status_code == 503
    monkeypatch.undo()
    assert client.get(keys).json() == {"api_keys": []}


def test_a_key_that_cannot_be_issued_has_no_event(
    ledger_api: LedgerApi, keys: str, organisation: str, client: Any
) -> None:
    for number in range(API_KEYS_MAX):
        client.post(keys, json={"name": f"key {number}"}).raise_for_status()
    before = history(ledger_api.conninfo, organisation.rpartition("/")[2])
    assert client.post(keys, json={"name": "one too many"}).status_code == 409
    assert history(ledger_api.conninfo, organisation.rpartition("/")[2]) == before


def test_concurrent_requests_issue_at_most_ten_live_keys(client: Any, keys: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: client.post(keys, json={"name": f"key {n}"}), range(16)))
    made = [each for each in answers if each.status_code == 201]
    refused = [each for each in answers if each.status_code != 201]
    assert len(made) == API_KEYS_MAX
    assert {problem_of(each) for each in refused} == {"api-keys-exhausted"}
    assert len({each.json()["key"] for each in made}) == API_KEYS_MAX

    client.delete(f"{keys}/{made[0].json()['key_id']}")
    assert client.post(keys, json={"name": "in its place"}).status_code == 201


def test_a_key_of_another_organisation_cannot_be_revoked(client: Any, issued: dict[str, Any]) -> None:
    other = "/v1/organisations/org-with-other-keys"
    client.put(other, json={"time_zone": "UTC", "currency": "USD"})
    response = client.delete(f"{other}/api-keys/{issued['key_id']}")
    assert problem_of(response) == "api-key-unknown"


@pytest.mark.parametrize("change", [lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"), str.upper])
def test_another_secret_is_refused(
    client: Any, organisation: str, issued: dict[str, Any], change: Any
) -> None:
    headers = {"X-API-Key": change(issued["key"])}
    client = client.__class__(client.app, base_url=client.base_url)
    response = client.get(f"{organisation}/balance", headers=headers)
    assert response.status_code == 401
    assert problem_of(response) == "credentials-refused"
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("key", ["", "clk_", "x" * 5_000, "clk_0f3a9c5d7e21_" + "a" * 43, "caf\u00e9"])
def test_an_invalid_key_is_refused(ledger_api: LedgerApi, organisation: str, key: str) -> None:
    with ledger_api.client(headers={}) as client:
        response = client.get(f"{organisation}/balance", headers={"X-API-Key": key.encode()})
    assert response.status_code == 401
    assert problem_of(response) == "credentials-refused"


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", None, 5])
def test_a_name_out_of_bounds(client: Any, keys: str, name: Any) -> None:
    response = client.post(keys, json={"name": name})
    assert response.status_code == 422
    assert invalid_fields(response) == ["name"]


@pytest.mark.parametrize("key_id", ["0F3A9C5D7E21", "0f3a", "%00"])
def test_an_invalid_key_id(client: Any, keys: str, key_id: str) -> None:
    response = client.delete(f"{keys}/{key_id}")
    assert response.status_code == 422
    assert invalid_fields(response) == ["key_id"]
