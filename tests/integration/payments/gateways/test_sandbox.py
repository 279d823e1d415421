"""The sandbox itself: its stored data, its access rules, and its pages."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.payments.gateway import AttemptStatus, PaymentGateway
from infra.embedded.errors import EmbeddedServerError
from infra.embedded.gateway_sandbox.keys import KeyFolder
from infra.embedded.gateway_sandbox.server import SandboxGateway
from tests.integration.payments.gateways.gateway_client import Form, Payer


def test_its_keys_are_private_and_persistent(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    keys = folder.keys()
    assert KeyFolder(tmp_path).keys() == keys
    for path in [folder.root, *folder.root.iterdir()]:
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path


def test_its_records_and_undelivered_webhooks_survive_a_restart(
    tmp_path: Path, data_dir: Path, adapters: dict[str, PaymentGateway], order_request: Any
) -> None:
    del adapters  # only the settings are reused
    from infra.payments.gateways.wiring import open_gateways
    from infra.settings import Settings

    def sandbox() -> SandboxGateway:
        return SandboxGateway(tmp_path, port=port, webhook_url="http://127.0.0.1:9/nobody")

    port = KeyFolder(tmp_path).port()
    given = KeyFolder(tmp_path).settings(f"http://127.0.0.1:{port}")
    made = open_gateways(Settings(**{name.lower(): value for name, value in given.items()}))
    with sandbox().serving():
        payer = Payer(f"http://127.0.0.1:{port}")
        paid = made["razorpay"].open_order(order_request())
        payer.choose(paid.checkout, "pay")
        left = made["payglocal"].open_order(order_request())
        payer.choose(left.checkout, "late")
        payer.close()
    assert KeyFolder(tmp_path).port() == port
    with (again := sandbox()).serving():
        assert made["razorpay"].attempts(paid.order_id)[0].status is AttemptStatus.CAPTURED
        assert {delivery.event_id for delivery in again.state.contents.outbox}, "no listener accepted them"
        late = again.state.payments_of(left.order_id)[0]
        late.captures_at = time.time() - 1
        deadline = time.monotonic() + 10
        while made["payglocal"].attempts(left.order_id)[0].status is not AttemptStatus.CAPTURED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for gateway in made.values():
        gateway.close()


def test_a_taken_port_is_an_error(sandbox: SandboxGateway, tmp_path: Path) -> None:
    second = SandboxGateway(tmp_path, port=sandbox.port, webhook_url="http://127.0.0.1:9/nobody")
    with pytest.raises(EmbeddedServerError, match=str(sandbox.port)), second.serving():
        pytest.fail("it serves on a taken port")


def test_a_pending_payment_is_decided_in_the_list_of_orders(
    sandbox: SandboxGateway, payer: Payer, adapters: dict[str, PaymentGateway], order_request: Any
) -> None:
    razorpay = adapters["razorpay"]
    for decision, status in (("capture", AttemptStatus.CAPTURED), ("fail", AttemptStatus.FAILED)):
        opened = razorpay.open_order(order_request())
        payer.choose(opened.checkout, "pending")
        [pending] = razorpay.attempts(opened.order_id)
        shown = httpx.get(f"{sandbox.url}/").text
        action = f"/sandbox/payments/{pending.gateway_payment_id}/{decision}"
        assert action in shown
        assert httpx.post(sandbox.url + action).status_code == 303
        assert [a.status for a in razorpay.attempts(opened.order_id)] == [status]
        assert httpx.post(sandbox.url + action).status_code == 409, "a decision is final"


@pytest.mark.parametrize("outcome", ["pending", "late"])
def test_the_return_names_a_pending_payment(
    payer: Payer, adapters: dict[str, PaymentGateway], order_request: Any, outcome: str
) -> None:
    request = order_request()
    with_link = payer.choose(adapters["razorpay"].open_order(request).checkout, outcome)
    assert with_link.links == [request.cancel_url]
    opened = adapters["payglocal"].open_order(request)
    form = payer.choose(opened.checkout, outcome)
    assert (form.method, form.action) == ("post", request.return_url)
    notification = adapters["payglocal"].verify_return(form.fields)
    assert notification.attempt is not None
    assert (notification.attempt.order_id, notification.attempt.status) == (
        opened.order_id,
        AttemptStatus.PENDING,
    )


def test_repeated_presses_of_the_button_pay_once(
    sandbox: SandboxGateway, payer: Payer, adapters: dict[str, PaymentGateway], order_request: Any
) -> None:
    for gateway in adapters.values():
        opened = gateway.open_order(order_request())
        payer.choose(opened.checkout, "pay")
        again = httpx.post(f"{sandbox.url}/sandbox/orders/{opened.order_id}/pay", data={"amount": ""})
        assert again.status_code == 409
        assert len(gateway.attempts(opened.order_id)) == 1


def test_text_of_the_shop_is_escaped(
    payer: Payer, adapters: dict[str, PaymentGateway], order_request: Any, sandbox: SandboxGateway
) -> None:
    opened = adapters["razorpay"].open_order(order_request())
    form = {**opened.checkout.fields, "description": "<script>alert(1)</script>"}
    page = httpx.post(opened.checkout.url, data=form).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert Form(page).buttons[0] == f"/sandbox/orders/{opened.order_id}/pay", "the first choice is to pay"


@pytest.mark.parametrize("path", ["/sandbox/orders/none/pay", "/sandbox/payments/none/capture"])
def test_an_unknown_page_is_404(sandbox: SandboxGateway, path: str) -> None:
    assert httpx.post(sandbox.url + path).status_code == 404


def test_a_forged_transaction_opens_no_page(sandbox: SandboxGateway) -> None:
    assert httpx.get(f"{sandbox.url}/gl/payflow-ui/?x-gl-token=a.b.c").status_code == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"amount": 99, "currency": "INR", "receipt": "r"}'])
def test_orders_that_razorpay_would_refuse_are_refused(
    sandbox: SandboxGateway, data_dir: Path, body: bytes
) -> None:
    keys = KeyFolder(data_dir).keys()
    auth = (keys.razorpay_key_id, keys.razorpay_key_secret)
    answer = httpx.post(f"{sandbox.url}/v1/orders", content=body, auth=auth)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BAD_REQUEST_ERROR")
