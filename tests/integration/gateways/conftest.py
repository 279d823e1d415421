"""A sandbox for all tests, and the two production adapters in front of it, over real HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from domain.gateway import OrderRequest

if TYPE_CHECKING:
    from domain.gateway import PaymentGateway
    from infra.embedded.postgres import EmbeddedPostgres
    from infra.embedded.sandbox.server import SandboxGateway
    from tests.integration.gateways.shop import Ear, Payer
    from tests.integration.gateways.till import Till
    from tests.integration.gateways.wire import Wire

PATIENT_S = 5.0
HASTY_S = 0.7
"""Of tests about slow answers; the machine may be busy."""


@pytest.fixture(scope="session")
def ear() -> Iterator[Ear]:
    """The shop's ear."""
    from tests.integration.gateways.shop import Ear

    ear = Ear()
    with ear.listening():
        yield ear


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sandbox keeps its keys and its book."""
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(scope="session")
def sandbox(data_dir: Path, ear: Ear) -> Iterator[SandboxGateway]:
    """The sandbox."""
    from infra.embedded.sandbox.keys import KeyFolder
    from infra.embedded.sandbox.server import SandboxGateway

    sandbox = SandboxGateway(
        data_dir, port=KeyFolder(data_dir).port(), webhook_url=ear.url, retries_after_s=0.05
    )
    with sandbox.serving():
        yield sandbox


@pytest.fixture(scope="session")
def payer(sandbox: SandboxGateway) -> Iterator[Payer]:
    """A payer's browser."""
    from tests.integration.gateways.shop import Payer

    payer = Payer(sandbox.url)
    yield payer
    payer.close()


@pytest.fixture(scope="session")
def long_wire(sandbox: SandboxGateway) -> Iterator[Wire]:
    """The wire between the adapters and the sandbox, for all tests."""
    from tests.integration.gateways.wire import wire_to

    with wire_to(sandbox.port, slow_s=2 * HASTY_S) as wire:
        yield wire


@pytest.fixture
def wire(long_wire: Wire) -> Iterator[Wire]:
    """The wire, whole at the beginning and at the end."""
    yield long_wire
    long_wire.break_requests()


@pytest.fixture(scope="session")
def adapters(data_dir: Path, long_wire: Wire) -> Iterator[dict[str, Any]]:
    """Both adapters, by name, as the service wires them."""
    from infra.bootstrap import gateways
    from infra.embedded.sandbox.keys import KeyFolder
    from infra.settings import Settings

    given = {name.lower(): value for name, value in KeyFolder(data_dir).settings(long_wire.url).items()}
    made = gateways(Settings(**given, gateway_timeout_s=PATIENT_S, payglocal_currencies="USD,INR"))
    yield dict(made)
    for adapter in made.values():
        adapter.close()


@pytest.fixture(scope="module")
def ledger_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database with the ledger's schema, for all tests here."""
    from psycopg.conninfo import make_conninfo

    from infra.migrate import SERVICE_ROLE, migrate
    from tests.servers import new_database

    with new_database(postgres_server) as url:
        migrate(url)
        yield make_conninfo(url, options=f"-c role={SERVICE_ROLE}")


@pytest.fixture
def till(
    ledger_url: str, adapters: dict[str, PaymentGateway], wire: Wire, sandbox: SandboxGateway
) -> Iterator[Till]:
    """A till; at the end every credit it sold is counted again from the gateway's book."""
    del wire  # whole again at the end of each test
    from infra.bootstrap import open_ledger
    from tests.integration.gateways.till import open_till

    ledger = open_ledger(ledger_url)
    till = open_till(ledger, adapters, ledger_url)
    yield till
    till.assert_every_credit_was_paid_for(sandbox.book)
    ledger.close()


@pytest.fixture(autouse=True)
def hasty(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the adapters give up soon where a test is about slow answers."""
    from tests.integration.gateways.wire import Fault

    callspec = getattr(request.node, "callspec", None)
    if callspec is None or callspec.params.get("fault") is not Fault.SLOW:
        yield
        return
    clients = [adapter._transport._client for adapter in request.getfixturevalue("adapters").values()]
    for client in clients:
        client.timeout = HASTY_S
    yield
    for client in clients:
        client.timeout = PATIENT_S


_numbers = itertools.count(1)


@pytest.fixture
def order_request(wire: Wire) -> Callable[..., OrderRequest]:
    """A function that makes a request for an order no other test has."""

    def make(amount_minor: int = 177_000, currency: str = "INR") -> OrderRequest:
        return OrderRequest(
            f"payment-{next(_numbers)}-{int(datetime.now(UTC).timestamp())}",
            amount_minor,
            currency,
            "1,000 credits",
            return_url="http://127.0.0.1:9/credits/payments/p/return",
            cancel_url="http://127.0.0.1:9/credits/payments/p/return?cancelled=1",
        )

    return make
