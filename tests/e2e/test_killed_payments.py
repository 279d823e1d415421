"""Payments through the real processes: API, projector, the sandbox gateway, and a browser's requests.

The API is killed at the worst moments: the gateway has executed a request, but the ledger does not know it
yet.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest

from domain.payments.gateway import Checkout
from infra.embedded.files import pick_free_port
from infra.embedded.gateway_sandbox.keys import KeyFolder
from infra.embedded.gateway_sandbox.server import SandboxGateway
from infra.embedded.issuer import EmbeddedIssuer
from tests.e2e.processes import Worker, run_command
from tests.integration.payments.gateways.faulty_proxy import Fault, FaultyProxy, faulty_proxy_to
from tests.integration.payments.gateways.gateway_client import Form, Payer

if TYPE_CHECKING:
    from infra.embedded.postgres import EmbeddedPostgres

WITHIN_S = 60.0
_CREDIT_MINOR = {"USD": 2, "INR": 177}
"""The price of a credit, tax included."""
_numbers = itertools.count(1)

T = TypeVar("T")


@dataclass
class PaymentService:
    """The service's processes, the gateway, and the proxy between them."""

    api: Worker
    projector: Worker
    url: str
    sandbox: SandboxGateway
    proxy: FaultyProxy
    issuer: EmbeddedIssuer
    payer: Payer
    organisations: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start the processes that do not run, and wait until they respond."""
        self.api.start()
        self.projector.start()
        eventually(lambda: httpx.get(f"{self.url}/readyz").status_code == 200)

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        """Send a request as staff."""
        token = self.issuer.token("s-1", roles=["staff"])
        headers = {"Authorization": f"Bearer {token}"} | ({"Idempotency-Key": key} if key else {})
        return httpx.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=WITHIN_S)

    def open(self, currency: str) -> str:
        """Open an organisation without credits, and return its path."""
        path = f"/v1/organisations/org-{next(_numbers)}"
        asked = {"time_zone": "UTC", "currency": currency, "trial_credits": 0}
        assert self.ask("PUT", path, asked).status_code == 201
        self.organisations.append(path)
        return path

    def quote(self, organisation: str) -> str:
        """Return a quote for 1,000 credits."""
        answer = self.ask("POST", f"{organisation}/purchase-quotes", {"credits": 1_000})
        assert answer.status_code == 200, answer.text
        quote_id: str = answer.json()["quote_id"]
        return quote_id

    def begin(self, organisation: str, quote_id: str, gateway: str) -> Any:
        """Start the payment of a quote."""
        body = {"quote_id": quote_id, "gateway": gateway}
        answer = self.ask("POST", f"{organisation}/payments", body, key=f"pay {quote_id}")
        assert answer.status_code == 201, answer.text
        return answer.json()

    def handle_return(self, back: Form) -> None:
        """Redirect the browser back to the shop, as the gateway's page does."""
        answer = httpx.request(back.method, back.action, data=back.fields, timeout=WITHIN_S)
        assert answer.status_code == 303, answer.text

    def balance(self, organisation: str) -> int:
        balance: int = self.ask("GET", f"{organisation}/balance").json()["balance"]
        return balance

    def status(self, organisation: str, payment: Any) -> str:
        answer = self.ask("GET", f"{organisation}/payments/{payment['payment_id']}")
        return str(answer.json()["payment"]["status"]) if answer.status_code == 200 else ""

    def credits_paid_for(self) -> int:
        """Compute the credits from the gateway's own records alone."""
        state = self.sandbox.state
        return sum(
            (payment.amount_minor - state.refunded_minor(payment)) // _CREDIT_MINOR[payment.currency]
            for payment in state.contents.payments
            if payment.was_captured
        )


@pytest.fixture(scope="module")
def payment_service(
    postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PaymentService]:
    """A running payment service."""
    from psycopg.conninfo import make_conninfo

    from infra.migrations.migrate import SERVICE_ROLE, migrate
    from tests.servers import new_database

    folder: Path = tmp_path_factory.mktemp("shop")
    port = pick_free_port()
    url = f"http://127.0.0.1:{port}"
    keys = KeyFolder(folder)
    with ExitStack() as stack:
        database = stack.enter_context(new_database(postgres_server))
        migrate(database)
        sandbox = SandboxGateway(
            folder,
            port=keys.port(),
            webhook_url=f"{url}/v1/gateways/razorpay/webhooks",
            retries_after_s=0.2,
        )
        stack.enter_context(sandbox.serving())
        proxy = stack.enter_context(faulty_proxy_to(sandbox.port, slow_s=1.0))
        issuer = EmbeddedIssuer(folder)
        environment = {
            **keys.settings(proxy.url),
            "PAYGLOCAL_CURRENCIES": "USD,INR",
            "DATABASE_URL": make_conninfo(database, options=f"-c role={SERVICE_ROLE}"),
            "EMBEDDED_ISSUER_KEYS": str(issuer.start()),
            "API_PORT": str(port),
            "DATA_DIR": str(folder),
        }
        api = Worker("api", "api", environment, folder)
        projector = Worker("projector", "project", environment, folder)
        stack.callback(api.end)
        stack.callback(projector.end)
        payer = Payer(sandbox.url)
        stack.callback(payer.close)
        payment_service = PaymentService(api, projector, url, sandbox, proxy, issuer, payer)
        payment_service.start()
        yield payment_service
        assert (
            sum(map(payment_service.balance, payment_service.organisations))
            == payment_service.credits_paid_for()
        )
        for gateway in ("razorpay", "payglocal"):
            # The command fails on any difference between the gateway's list and the ledger.
            today = datetime.now(UTC).date()
            days = f"--from {today - timedelta(days=1)} --to {today}"
            assert not run_command(f"reconcile --gateway {gateway} {days}", environment)


def eventually(condition: Callable[[], T]) -> T:
    """Return the first true value of a condition; fail after the time-out."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            value = condition()
        except httpx.TransportError:
            value = None
        if value:
            return value
        time.sleep(0.05)
    pytest.fail("the wait timed out")


@pytest.mark.parametrize("gateway", ["razorpay", "payglocal"])
def test_a_purchase_from_the_quote_to_the_credits(payment_service: PaymentService, gateway: str) -> None:
    organisation = payment_service.open("INR")
    payment = payment_service.begin(organisation, payment_service.quote(organisation), gateway)
    back = payment_service.payer.choose(Checkout(**payment["checkout"]), "pay")

    assert back.action == f"{payment_service.url}/credits/payments/{payment['payment_id']}/return"
    payment_service.handle_return(back)

    assert payment_service.balance(organisation) == 1_000
    assert eventually(lambda: payment_service.status(organisation, payment) == "completed")


def test_webhooks_alone_complete_a_payment_once(payment_service: PaymentService) -> None:
    (
        payment_service.sandbox.webhook_sender.copies_per_event,
        payment_service.sandbox.webhook_sender.sends_newest_first,
    ) = 3, True
    organisation = payment_service.open("USD")
    payment = payment_service.begin(organisation, payment_service.quote(organisation), "razorpay")
    payment_service.payer.choose(Checkout(**payment["checkout"]), "pay")
    eventually(lambda: not payment_service.sandbox.state.contents.outbox)
    (
        payment_service.sandbox.webhook_sender.copies_per_event,
        payment_service.sandbox.webhook_sender.sends_newest_first,
    ) = 1, False
    assert payment_service.balance(organisation) == 1_000


def test_killed_while_the_gateway_opens_the_order(payment_service: PaymentService) -> None:
    organisation = payment_service.open("USD")
    quote_id = payment_service.quote(organisation)
    payment_service.proxy.break_requests(Fault.NONE, Fault.HOLD)
    kill_during_request(payment_service, lambda: payment_service.begin(organisation, quote_id, "razorpay"))

    payment = payment_service.begin(organisation, quote_id, "razorpay")

    orders = [
        order
        for order in payment_service.sandbox.state.contents.orders
        if order.receipt == payment["payment_id"]
    ]
    assert len(orders) == 1, "the order of the lost response was found again"
    payment_service.handle_return(payment_service.payer.choose(Checkout(**payment["checkout"]), "pay"))
    assert payment_service.balance(organisation) == 1_000


def test_killed_during_the_return_of_the_browser(payment_service: PaymentService) -> None:
    organisation = payment_service.open("USD")
    payment = payment_service.begin(organisation, payment_service.quote(organisation), "payglocal")
    back = payment_service.payer.choose(Checkout(**payment["checkout"]), "pay")
    payment_service.proxy.break_requests(Fault.HOLD)
    kill_during_request(payment_service, lambda: payment_service.handle_return(back))
    assert payment_service.balance(organisation) == 0

    rechecked = payment_service.ask("POST", f"{organisation}/payments/{payment['payment_id']}/recheck", {})

    assert rechecked.json()["status"] == "completed"
    assert payment_service.balance(organisation) == 1_000


def test_killed_during_a_refund(payment_service: PaymentService) -> None:
    organisation = payment_service.open("USD")
    payment = payment_service.begin(organisation, payment_service.quote(organisation), "razorpay")
    payment_service.handle_return(payment_service.payer.choose(Checkout(**payment["checkout"]), "pay"))
    path = f"{organisation}/payments/{payment['payment_id']}/refunds"
    payment_service.proxy.break_requests(Fault.NONE, Fault.HOLD)
    kill_during_request(
        payment_service, lambda: payment_service.ask("POST", path, {"credits": 400}, key="refund")
    )

    again = payment_service.ask("POST", path, {"credits": 400}, key="refund")

    assert again.json()["status"] == "refunded", again.text
    assert payment_service.balance(organisation) == 600
    [paid] = payment_service.sandbox.state.payments_of(again.json()["order_id"])
    assert payment_service.sandbox.state.refunded_minor(paid) == 800


def test_webhooks_wait_for_an_api_that_is_down(payment_service: PaymentService) -> None:
    organisation = payment_service.open("USD")
    payment = payment_service.begin(organisation, payment_service.quote(organisation), "razorpay")
    payment_service.api.kill()
    payment_service.payer.choose(Checkout(**payment["checkout"]), "pay")
    assert payment_service.sandbox.state.contents.outbox
    payment_service.start()
    eventually(lambda: payment_service.balance(organisation) == 1_000)


def kill_during_request(payment_service: PaymentService, ask: Callable[[], object]) -> None:
    """Kill the API after the gateway executed a request and before the response. Then start it again."""
    from threading import Thread

    def asking() -> None:
        with pytest.raises(httpx.TransportError):
            ask()

    payment_service.proxy.holds.clear()
    asker = Thread(target=asking)
    asker.start()
    assert payment_service.proxy.holds.wait(WITHIN_S)
    payment_service.api.kill()
    asker.join()
    payment_service.start()
