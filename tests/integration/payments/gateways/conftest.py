"""A sandbox gateway for all tests, and the two production adapters, over real HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from domain.payments.gateway import OrderRequest

if TYPE_CHECKING:
    from domain.payments.gateway import PaymentGateway
    from infra.embedded.gateway_sandbox.server import SandboxGateway
    from infra.embedded.postgres import EmbeddedPostgres
    from tests.integration.payments.gateways.faulty_proxy import FaultyProxy
    from tests.integration.payments.gateways.gateway_client import Payer, WebhookListener
    from tests.integration.payments.gateways.gateway_environment import GatewayEnvironment

LONG_TIMEOUT_S = 5.0
SHORT_TIMEOUT_S = 0.7
"""For tests of slow responses; the machine may be busy."""


@pytest.fixture(scope="session")
def webhook_listener() -> Iterator[WebhookListener]:
    """The shop's webhook listener."""
    from tests.integration.payments.gateways.gateway_client import WebhookListener

    webhook_listener = WebhookListener()
    with webhook_listener.listening():
        yield webhook_listener


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sandbox's keys and records."""
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(scope="session")
def sandbox(data_dir: Path, webhook_listener: WebhookListener) -> Iterator[SandboxGateway]:
    """The sandbox."""
    from infra.embedded.gateway_sandbox.keys import KeyFolder
    from infra.embedded.gateway_sandbox.server import SandboxGateway

    sandbox = SandboxGateway(
        data_dir, port=KeyFolder(data_dir).port(), webhook_url=webhook_listener.url, retries_after_s=0.05
    )
    with sandbox.serving():
        yield sandbox


@pytest.fixture(scope="session")
def payer(sandbox: SandboxGateway) -> Iterator[Payer]:
    """A payer's browser."""
    from tests.integration.payments.gateways.gateway_client import Payer

    payer = Payer(sandbox.url)
    yield payer
    payer.close()


@pytest.fixture(scope="session")
def session_proxy(sandbox: SandboxGateway) -> Iterator[FaultyProxy]:
    """The proxy between the adapters and the sandbox, for all tests."""
    from tests.integration.payments.gateways.faulty_proxy import faulty_proxy_to

    with faulty_proxy_to(sandbox.port, slow_s=2 * SHORT_TIMEOUT_S) as proxy:
        yield proxy


@pytest.fixture
def proxy(session_proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    """The proxy, without faults at the beginning and at the end of the test."""
    yield session_proxy
    session_proxy.break_requests()


@pytest.fixture(scope="session")
def adapters(data_dir: Path, session_proxy: FaultyProxy) -> Iterator[dict[str, Any]]:
    """Both adapters by name, wired as in the service."""
    from infra.embedded.gateway_sandbox.keys import KeyFolder
    from infra.payments.gateways.wiring import open_gateways
    from infra.settings import Settings

    given = {name.lower(): value for name, value in KeyFolder(data_dir).settings(session_proxy.url).items()}
    made = open_gateways(Settings(**given, gateway_timeout_s=LONG_TIMEOUT_S, payglocal_currencies="USD,INR"))
    yield dict(made)
    for adapter in made.values():
        adapter.close()


@pytest.fixture(scope="module")
def ledger_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database with the ledger's schema, for all tests here."""
    from psycopg.conninfo import make_conninfo

    from infra.migrations.migrate import SERVICE_ROLE, migrate
    from tests.servers import new_database

    with new_database(postgres_server) as url:
        migrate(url)
        yield make_conninfo(url, options=f"-c role={SERVICE_ROLE}")


@pytest.fixture
def gateway_env(
    ledger_url: str, adapters: dict[str, PaymentGateway], proxy: FaultyProxy, sandbox: SandboxGateway
) -> Iterator[GatewayEnvironment]:
    """A gateway environment. At the end, every credit it sold is recounted from the gateway's records."""
    del proxy  # the proxy has no faults at the end of each test
    from infra.service.composition import open_ledger
    from tests.integration.payments.gateways.gateway_environment import open_gateway_env

    ledger = open_ledger(ledger_url)
    gateway_env = open_gateway_env(ledger, adapters, ledger_url)
    yield gateway_env
    gateway_env.assert_every_credit_was_paid_for(sandbox.state)
    ledger.close()


@pytest.fixture(autouse=True)
def short_timeout(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give the adapters a short time-out, for tests of slow responses."""
    from tests.integration.payments.gateways.faulty_proxy import Fault

    callspec = getattr(request.node, "callspec", None)
    if callspec is None or callspec.params.get("fault") is not Fault.SLOW:
        yield
        return
    clients = [adapter._transport._client for adapter in request.getfixturevalue("adapters").values()]
    for client in clients:
        client.timeout = SHORT_TIMEOUT_S
    yield
    for client in clients:
        client.timeout = LONG_TIMEOUT_S


_numbers = itertools.count(1)


@pytest.fixture
def order_request(proxy: FaultyProxy) -> Callable[..., OrderRequest]:
    """A function that makes a request for a unique order."""

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
