"""One ledger and one app for all tests of the API; each test opens organisations of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from infra.embedded.postgres import EmbeddedPostgres
    from tests.integration.api.ledger_api import LedgerApi
    from tests.payment_gateway import InMemoryGateway


@pytest.fixture(scope="session")
def ledger_api(postgres_server: EmbeddedPostgres) -> Iterator[LedgerApi]:
    """A ledger behind its API, shared."""
    from infra.migrations.migrate import migrate
    from tests.integration.api.ledger_api import ledger_api
    from tests.servers import new_database

    with new_database(postgres_server) as url:
        migrate(url)
        with ledger_api(url) as lent:
            yield lent


@pytest.fixture(scope="session")
def client(ledger_api: LedgerApi) -> Iterator[TestClient]:
    """A client of the usual app."""
    with ledger_api.client() as client:
        yield client


@pytest.fixture
def gateway(ledger_api: LedgerApi, monkeypatch: pytest.MonkeyPatch) -> InMemoryGateway:
    """The in-memory gateway of the API's payments. At the start of each test its cards are valid."""
    from domain.payments.gateway import AttemptStatus
    from tests.payment_gateway import InMemoryGateway

    found: Any = ledger_api.services.payments.gateways["razorpay"]
    assert isinstance(found, InMemoryGateway)
    monkeypatch.setattr(found, "card_answers", AttemptStatus.CAPTURED)  # and restored at the end
    return found


_numbers = itertools.count(1)


@pytest.fixture
def organisation(client: TestClient) -> str:
    """The path of a newly opened organisation: UTC, USD, 200 free credits, projected on demand."""
    path = f"/v1/organisations/org-{next(_numbers)}"
    response = client.put(path, json={"time_zone": "UTC", "currency": "USD"})
    assert response.status_code == 201, response.text
    return path


@pytest.fixture
def read(client: TestClient, ledger_api: LedgerApi) -> Callable[..., Any]:
    """A function that updates the projections, gets a path, and returns its JSON."""

    def get(path: str, **parameters: Any) -> Any:
        ledger_api.catch_up()
        response = client.get(path, params=parameters)
        assert response.status_code == 200, response.text
        return response.json()

    return get
