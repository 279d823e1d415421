"""Features of Razorpay only: webhooks, cancellation without a record, capture, several payments per order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from domain.payments.gateway import (
    AttemptStatus,
    GatewayRefused,
    GatewayUnavailable,
    InvalidWebhookSignature,
    OrderRequest,
)
from infra.embedded.gateway_sandbox.server import SandboxGateway
from infra.payments.gateways import razorpay as adapter
from infra.payments.gateways.razorpay import RazorpayGateway
from tests.integration.payments.gateways.gateway_client import (
    Payer,
    ReceivedWebhook,
    WebhookListener,
)

Make = Callable[..., OrderRequest]
WITHIN_S = 10.0


@pytest.fixture
def razorpay(adapters: dict[str, Any]) -> RazorpayGateway:
    """The Razorpay adapter."""
    gateway: RazorpayGateway = adapters["razorpay"]
    return gateway


@pytest.fixture
def received_webhooks(
    webhook_listener: WebhookListener, sandbox: SandboxGateway
) -> Iterator[Callable[[str], list[ReceivedWebhook]]]:
    """A function that returns the webhooks of an order, after the sandbox has delivered all of them."""

    def about(order_id: str) -> list[ReceivedWebhook]:
        deadline = time.monotonic() + WITHIN_S
        while sandbox.state.contents.outbox and time.monotonic() < deadline:
            time.sleep(0.02)
        return [each for each in webhook_listener.received_webhooks if order_id.encode() in each.body]

    yield about
    webhook_listener.status = 200
    sandbox.webhook_sender.copies_per_event = 1
    sandbox.webhook_sender.sends_newest_first = False


def test_webhooks_agree_with_the_api(
    razorpay: RazorpayGateway,
    payer: Payer,
    order_request: Make,
    received_webhooks: Callable[[str], list[ReceivedWebhook]],
) -> None:
    opened = razorpay.open_order(order_request())
    payer.choose(opened.checkout, "pay")
    notices = [
        razorpay.verify_webhook(each.body, each.headers) for each in received_webhooks(opened.order_id)
    ]

    assert {notification.kind for notification in notices} == {
        "payment.authorized",
        "payment.captured",
        "order.paid",
    }
    assert len({notification.notification_id for notification in notices}) == 3
    [attempt] = razorpay.attempts(opened.order_id)
    by_kind = {notification.kind: notification.attempt for notification in notices}
    assert by_kind["payment.captured"] == by_kind["order.paid"] == attempt
    assert by_kind["payment.authorized"] is not None
    assert by_kind["payment.authorized"].status is AttemptStatus.PENDING


def test_a_changed_webhook_is_refused(
    razorpay: RazorpayGateway,
    payer: Payer,
    order_request: Make,
    received_webhooks: Callable[[str], list[ReceivedWebhook]],
) -> None:
    opened = razorpay.open_order(order_request())
    payer.choose(opened.checkout, "fail")
    [failed] = received_webhooks(opened.order_id)
    notification = razorpay.verify_webhook(failed.body, failed.headers)
    assert (notification.kind, notification.attempt and notification.attempt.reason) == (
        "payment.failed",
        "payment_failed",
    )
    for body in (
        failed.body.replace(b'"failed"', b'"captured"'),
        failed.body + b" ",
        msgspec.json.format(failed.body),
    ):
        with pytest.raises(InvalidWebhookSignature):
            razorpay.verify_webhook(body, failed.headers)
    with pytest.raises(InvalidWebhookSignature):
        razorpay.verify_webhook(failed.body, {**failed.headers, "x-razorpay-signature": "0" * 64})


def test_signed_webhooks_of_other_kinds_are_not_attempts(
    razorpay: RazorpayGateway, sandbox: SandboxGateway
) -> None:
    def read(body: bytes) -> Any:
        return razorpay.verify_webhook(body, {"x-razorpay-signature": sandbox.webhook_sender.sign(body)})

    assert read(b'{"event":"settlement.processed","payload":{"settlement":{}}}').attempt is None
    of_a_link = (
        b'{"event":"payment.captured","payload":{"payment":{"entity":{"id":"pay_1","status":"captured",'
    )
    assert read(of_a_link + b'"amount":1,"currency":"INR","order_id":null}}}}').attempt is None
    for nonsense in (b"", b"[]", b"\xff", b'{"event":1}', of_a_link + b'"amount":"1","currency":"INR"}}}}'):
        with pytest.raises(InvalidWebhookSignature):
            read(nonsense)


def test_a_webhook_is_repeated_with_the_same_id_until_it_is_accepted(
    razorpay: RazorpayGateway,
    payer: Payer,
    order_request: Make,
    webhook_listener: WebhookListener,
    received_webhooks: Callable[[str], list[ReceivedWebhook]],
) -> None:
    opened = razorpay.open_order(order_request())
    webhook_listener.status = 503
    payer.choose(opened.checkout, "fail")
    deadline = time.monotonic() + WITHIN_S
    while sum(opened.order_id.encode() in each.body for each in webhook_listener.received_webhooks) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    webhook_listener.status = 200
    again = received_webhooks(opened.order_id)
    assert len(again) >= 3
    assert len({razorpay.verify_webhook(each.body, each.headers).notification_id for each in again}) == 1


def test_a_cancellation_leaves_no_record(
    razorpay: RazorpayGateway, payer: Payer, order_request: Make
) -> None:
    request = order_request()
    opened = razorpay.open_order(request)
    back = payer.choose(opened.checkout, "cancel")
    assert (back.links, back.fields) == ([request.cancel_url], {})
    assert razorpay.attempts(opened.order_id) == []


def test_an_authorised_payment_is_captured(
    razorpay: RazorpayGateway, payer: Payer, order_request: Make, sandbox: SandboxGateway
) -> None:
    opened = razorpay.open_order(order_request())
    back = payer.choose(opened.checkout, "authorize")
    notification = razorpay.verify_return(back.fields)
    assert notification.attempt is not None
    assert notification.attempt.status is AttemptStatus.PENDING
    [attempt] = razorpay.attempts(opened.order_id)
    assert attempt.status is AttemptStatus.CAPTURED
    order = sandbox.state.order(opened.order_id)
    assert order is not None
    assert sandbox.state.paid_minor(order) == 177_000


def test_of_two_authorised_payments_one_is_captured(
    razorpay: RazorpayGateway, payer: Payer, order_request: Make
) -> None:
    opened = razorpay.open_order(order_request())
    payer.choose(opened.checkout, "authorize")
    payer.choose(opened.checkout, "authorize")
    for _ in range(2):
        statuses = sorted(attempt.status for attempt in razorpay.attempts(opened.order_id))
        assert statuses == [AttemptStatus.CAPTURED, AttemptStatus.PENDING]


def test_an_order_paid_twice_shows_both_payments(
    razorpay: RazorpayGateway, payer: Payer, order_request: Make
) -> None:
    opened = razorpay.open_order(order_request())
    payer.choose(opened.checkout, "twice")
    attempts = razorpay.attempts(opened.order_id)
    assert [(a.status, a.amount_minor) for a in attempts] == [(AttemptStatus.CAPTURED, 177_000)] * 2
    assert len({attempt.gateway_payment_id for attempt in attempts}) == 2


def test_a_second_try_after_a_refusal_of_the_bank_pays(
    razorpay: RazorpayGateway, payer: Payer, order_request: Make
) -> None:
    request = order_request()
    opened = razorpay.open_order(request)
    payer.choose(opened.checkout, "fail")
    payer.choose(razorpay.checkout(opened.order_id, request), "pay")
    statuses = {attempt.status for attempt in razorpay.attempts(opened.order_id)}
    assert statuses == {AttemptStatus.FAILED, AttemptStatus.CAPTURED}


def test_the_same_payment_id_over_another_amount_is_refused(
    razorpay: RazorpayGateway, order_request: Make
) -> None:
    request = order_request(100_000)
    assert razorpay.open_order(request) == razorpay.open_order(request)
    with pytest.raises(GatewayRefused) as refusal:
        razorpay.open_order(msgspec.structs.replace(request, amount_minor=100_001))
    assert refusal.value.details["code"] == "ORDER_DIFFERS"


def test_wrong_keys_are_not_an_answer_about_a_payment(
    razorpay: RazorpayGateway, payer: Payer, order_request: Make, sandbox: SandboxGateway
) -> None:
    opened = razorpay.open_order(order_request())
    payer.choose(opened.checkout, "pay")
    stranger = RazorpayGateway(
        "rzp_test_of_another",
        "wrong",
        "wrong",
        currencies=frozenset({"INR"}),
        merchant_name="Shop",
        clock=razorpay._clock,
        url=sandbox.url,
    )
    with pytest.raises(GatewayUnavailable, match="401"):
        stranger.attempts(opened.order_id)
    stranger.close()


def test_a_long_list_of_settlements_is_read_to_its_end(
    razorpay: RazorpayGateway,
    payer: Payer,
    order_request: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adapter, "_PAGE_OF_SETTLEMENTS", 2)
    paid = set()
    for _ in range(5):
        opened = razorpay.open_order(order_request())
        payer.choose(opened.checkout, "pay")
        paid.add(razorpay.attempts(opened.order_id)[0].gateway_payment_id)
    today = razorpay._clock().date()
    listed = [line.gateway_payment_id for line in razorpay.settlement_lines(today, today)]
    assert paid <= set(listed)


def test_the_page_opens_only_for_the_orders_own_amount(
    razorpay: RazorpayGateway, order_request: Make, sandbox: SandboxGateway
) -> None:
    opened = razorpay.open_order(order_request())
    for field, value in {"amount": "1", "key_id": "another", "order_id": "order_of_nobody"}.items():
        form = {**opened.checkout.fields, field: value}
        assert httpx.post(opened.checkout.url, data=form).status_code == 400
