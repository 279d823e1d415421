"""Health, metrics, documentation, and the API's responses when its dependencies fail."""

from __future__ import annotations

import re
from contextlib import ExitStack
from datetime import UTC, datetime

import psycopg
import pytest

from api.http.problem_types import PROBLEM_TYPES
from infra.migrations.migrate import migrate
from tests.integration.api.ledger_api import invalid_fields, problem_of
from tests.integration.api.ledger_api import ledger_api as ledger_api_on
from tests.servers import new_database

GRANT = {"credits": 1, "kind": "admin", "reason": "x"}


def test_the_process_is_alive(client):
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_the_service_is_ready(client):
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "checks": {"database": "ok", "projections": "ok"}}


def test_a_part_that_is_not_ready_is_named(ledger_api):
    with ledger_api.client(readiness=lambda: {"database": "", "kafka": "no broker answers"}) as client:
        response = client.get("/readyz")
    assert response.status_code == 503
    assert problem_of(response) == "not-ready"
    assert invalid_fields(response) == ["kafka"]
    assert "no broker answers" in response.json()["detail"]


def test_metrics_use_the_route_template_not_the_path(ledger_api, organisation):
    with ledger_api.client() as client:
        client.get(f"{organisation}/balance")
        client.get("/v1/organisations/secret-customer/balance")
        client.get("/no/such/secret")
        client.request("SECRET", "/healthz")
        client.get("/healthz", headers={"Host": "secret.example"})
        text = client.get("/metrics").text
    route = 'route="/v1/organisations/{organisation_id}/balance"'
    assert f'creditledger_http_requests_total{{method="GET",{route},status="404"}} ' in text
    assert 'creditledger_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'creditledger_http_requests_total{method="GET",route="unmatched",status="421"} 1.0' in text
    assert 'creditledger_http_requests_total{method="other",route="/healthz",status="405"} 1.0' in text
    assert f'creditledger_http_request_duration_seconds_count{{method="GET",{route}}} 2.0' in text
    assert "secret" not in text.lower()


def test_metrics_show_the_positions_of_projections(client, organisation, ledger_api):
    ledger_api.catch_up()
    client.post(f"{organisation}/grants", json=GRANT)
    text = client.get("/metrics").text
    lags = re.findall(r'creditledger_projection_lag_positions{projection="(\w+)"} (\S+)', text)
    assert lags
    assert all(float(lag) >= 1 for _, lag in lags)
    positions = re.findall(r'creditledger_projection_position{projection="(\w+)"} (\S+)', text)
    assert [name for name, _ in positions] == [name for name, _ in lags]
    assert re.search(r"creditledger_log_end_position \d", text)


@pytest.fixture(scope="module")
def cut_off(postgres_server):
    """A client of an app without a database."""
    with ExitStack() as stack:
        with new_database(postgres_server) as url:
            migrate(url)
            api = stack.enter_context(ledger_api_on(url))
        api.services.ledger.factory.datastore.pool.timeout = 0.2
        yield stack.enter_context(api.client(read_connection=lambda: psycopg.connect(url)))


@pytest.mark.parametrize("name", ["balance", "balance?min_position=1", "balance?as_of=2026-01-01T00:00:00Z"])
def test_reads_without_a_database(cut_off, name):
    response = cut_off.get(f"/v1/organisations/org-1/{name}")
    assert response.status_code == 503
    assert problem_of(response) == "store-unavailable"
    assert response.headers["retry-after"] == "1"
    assert 'database "' not in response.text


def test_writes_without_a_database(cut_off):
    response = cut_off.post("/v1/organisations/org-1/grants", json=GRANT)
    assert response.status_code == 503
    assert problem_of(response) == "store-unavailable"
    assert 'database "' not in response.text


def test_metrics_and_health_without_a_database(cut_off):
    assert cut_off.get("/healthz").status_code == 200
    metrics = cut_off.get("/metrics")
    assert metrics.status_code == 200
    assert "creditledger_projection_position{" not in metrics.text


def test_an_internal_error_leaks_nothing_and_is_logged_with_its_request(ledger_api, organisation, caplog):
    def broken_clock() -> datetime:
        raise RuntimeError("password=hunter2")

    with ledger_api.client(clock=broken_clock) as client:
        response = client.post(f"{organisation}/grants", json=GRANT, headers={"X-Request-Id": "unlucky"})
    assert response.status_code == 500
    assert problem_of(response) == "internal-error"
    assert "hunter2" not in response.text
    record = next(each for each in caplog.records if each.name == "api")
    assert "unlucky" in record.getMessage()
    assert record.exc_info


def test_every_problem_type_is_explained(client):
    for name, problem in PROBLEM_TYPES.items():
        document = client.get(f"/problems/{name}").json()
        assert document["type"] == problem.uri == f"/problems/{name}"
        assert document["explanation"].endswith(".")
    assert problem_of(client.get("/problems/no-such-problem")) == "not-found"


def test_the_documentation_loads_no_other_sites_and_no_scripts(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<script|(src|href)=\"(https?:)?//", page.text)
    for link in set(re.findall(r'(?:src|href)="(/[^"#]*)"', page.text)):
        assert client.get(link).status_code == 200, link
    names = set(re.findall(r'id="([^"]+)"', page.text))
    assert set(re.findall(r'href="#([^"]+)"', page.text)) <= names


@pytest.mark.parametrize(
    ("accept", "leads_to"), [("text/html,application/xhtml+xml,*/*;q=0.8", "/credits"), ("*/*", "/docs")]
)
def test_the_root_redirects_browsers_to_the_pages_and_programs_to_the_documentation(client, accept, leads_to):
    response = client.get("/", headers={"Accept": accept}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (307, leads_to)


def test_times_are_utc(client, organisation, ledger_api):
    as_of = datetime.now(UTC).isoformat()
    answer = client.get(f"{organisation}/balance", params={"as_of": as_of}).json()
    assert answer["as_of"].endswith("Z")
