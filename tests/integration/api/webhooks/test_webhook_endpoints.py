"""Webhook endpoints over HTTP: added with a secret that is shown once, read, changed and removed."""

from __future__ import annotations

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import psycopg
import pytest

from domain.credits import audit_events
from domain.webhooks.endpoints import ENDPOINTS_MAX
from tests.histories import history
from tests.integration.api.ledger_api import STAFF, LedgerApi, invalid_fields, problem_of

URL = "https://hooks.example/credits?token=SECRET"


@pytest.fixture
def endpoints(organisation: str) -> str:
    return f"{organisation}/webhook-endpoints"


@pytest.fixture
def added(client: Any, endpoints: str) -> dict[str, Any]:
    """A new endpoint, as shown to the user who added it."""
    response = client.post(endpoints, json={"url": URL})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


@pytest.fixture
def one(endpoints: str, added: dict[str, Any]) -> str:
    return f"{endpoints}/{added['endpoint_id']}"


def test_an_endpoint_is_listed_without_its_secret(client: Any, endpoints: str, added: dict[str, Any]) -> None:
    secret = added.pop("secret")
    assert secret.startswith("whsec_")
    assert len(b64decode(secret.removeprefix("whsec_"))) == 32
    assert (added["url"], added["status"], added["added_by"]) == (URL, "enabled", STAFF)
    assert client.get(endpoints).json() == {"webhook_endpoints": [added]}


def test_changes_of_an_endpoint_are_events_without_its_url(
    client: Any, one: str, organisation: str, ledger_api: LedgerApi
) -> None:
    client.post(f"{one}/secret").raise_for_status()
    client.delete(one).raise_for_status()
    endpoint_id = one.rpartition("/")[2]
    *_, added, rotated, removed = history(ledger_api.conninfo, organisation.rpartition("/")[2])
    assert isinstance(added, audit_events.WebhookEndpointAdded)
    assert isinstance(rotated, audit_events.WebhookSecretRotated)
    assert isinstance(removed, audit_events.WebhookEndpointRemoved)
    assert added.url_digest == sha256(URL.encode()).hexdigest()
    assert {each.endpoint_id for each in (added, rotated, removed)} == {endpoint_id}
    assert {each.actor for each in (added, rotated, removed)} == {STAFF}
    with psycopg.connect(ledger_api.conninfo) as connection:
        kept = connection.execute(
            "SELECT count(*) FROM ledger.events WHERE position('SECRET'::bytea IN state) > 0"
        ).fetchone()
        rows = connection.execute(
            "SELECT count(*) FROM ledger.webhook_endpoints WHERE endpoint_id = %s", [endpoint_id]
        ).fetchone()
    assert (kept, rows) == ((0,), (0,))


def test_a_rotation_changes_the_secret(client: Any, one: str, added: dict[str, Any]) -> None:
    response = client.post(f"{one}/secret")
    assert response.status_code == 201
    assert response.json().keys() == {"secret"}
    assert response.json()["secret"] != added["secret"]


def test_a_test_message_appears_in_the_deliveries(client: Any, one: str) -> None:
    response = client.post(f"{one}/test")
    assert response.status_code == 202
    (delivery,) = client.get(f"{one}/deliveries").json()["deliveries"]
    assert delivery["message_id"] == response.json()["message_id"]
    assert (delivery["type"], delivery["status"]) == ("credit_ledger.webhook_test.v1", "pending")
    assert (delivery["attempts"], delivery["last_status"], delivery["delivered_at"]) == (0, None, None)


def test_a_disabled_endpoint_is_enabled_by_hand(
    client: Any, one: str, organisation: str, ledger_api: LedgerApi
) -> None:
    def events() -> int:
        return len(history(ledger_api.conninfo, organisation.rpartition("/")[2]))

    assert client.post(f"{one}/enable").json()["status"] == "enabled"
    before = events()
    with psycopg.connect(ledger_api.conninfo, autocommit=True) as connection:
        connection.execute(
            "UPDATE ledger.webhook_endpoints SET failing_since = now(), failures = 9, disabled_at = now()"
            " WHERE endpoint_id = %s",
            [one.rpartition("/")[2]],
        )
    assert problem_of(client.post(f"{one}/test")) == "webhook-endpoint-disabled"
    enabled = client.post(f"{one}/enable").json()
    assert (enabled["status"], enabled["failing_since"], enabled["disabled_at"]) == ("enabled", None, None)
    assert events() == before + 1, "enabling an enabled endpoint is no event"
    assert isinstance(
        history(ledger_api.conninfo, organisation.rpartition("/")[2])[-1], audit_events.WebhookEndpointEnabled
    )


def test_concurrent_requests_add_at_most_five(client: Any, endpoints: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: client.post(endpoints, json={"url": f"{URL}&{n}"}), range(9)))
    refused = [each for each in answers if each.status_code != 201]
    assert len(answers) - len(refused) == ENDPOINTS_MAX
    assert {problem_of(each) for each in refused} == {"webhook-endpoints-exhausted"}


@pytest.mark.parametrize(
    "url",
    [
        *("", "x" * 2_049, "http://hooks.example/", "https://127.0.0.1/", "https://169.254.169.254/"),
        *("https://[::1]/", "https://user:pass@hooks.example/", "https://hooks.example:25/", None, 5),
    ],
)
def test_a_url_that_is_not_allowed(client: Any, endpoints: str, url: Any) -> None:
    response = client.post(endpoints, json={"url": url})
    assert response.status_code == 422
    assert invalid_fields(response) == ["url"]
    assert client.get(endpoints).json() == {"webhook_endpoints": []}


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", ""), ("POST", "/secret"), ("POST", "/enable"), ("POST", "/test"), ("GET", "/deliveries")],
)
def test_an_endpoint_of_another_organisation_is_unknown(
    client: Any, one: str, added: dict[str, Any], method: str, path: str
) -> None:
    other = "/v1/organisations/org-with-other-endpoints"
    client.put(other, json={"time_zone": "UTC", "currency": "USD"})
    response = client.request(method, f"{other}/webhook-endpoints/{added['endpoint_id']}{path}")
    assert response.status_code == 404
    assert problem_of(response) == "webhook-endpoint-unknown"
    assert client.get(f"{one}/deliveries").status_code == 200


def test_an_invalid_endpoint_id(client: Any, endpoints: str) -> None:
    assert invalid_fields(client.delete(f"{endpoints}/whe_X")) == ["endpoint_id"]
