"""Payments from the quote to the credits: the sandbox, the production adapters and the ledger, over real
HTTP.

Messages may be lost, repeated, late or out of order: every credit is paid for exactly once, and the
reconciliation reports money that did not become credits.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from domain.payments.events import Flag, PaymentStatus
from domain.payments.gateway import GatewayUnavailable, InvalidWebhookSignature, PaymentGateway
from domain.payments.refunds import AttemptRefund, CreditRefund, FeeRefund
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Currency
from infra.embedded.gateway_sandbox.server import SandboxGateway
from infra.service.composition import credits_of, open_ledger
from tests.integration.payments.gateways.faulty_proxy import Fault, FaultyProxy
from tests.integration.payments.gateways.gateway_client import (
    Payer,
    ReceivedWebhook,
    WebhookListener,
)
from tests.integration.payments.gateways.gateway_environment import open_gateway_env

if TYPE_CHECKING:
    from tests.integration.payments.gateways.gateway_environment import GatewayEnvironment, Sale

GATEWAYS = ["razorpay", "payglocal"]
WITHIN_S = 10.0


@pytest.fixture
def webhooks(
    webhook_listener: WebhookListener, sandbox: SandboxGateway, gateway_env: GatewayEnvironment
) -> Callable[[Sale], list[ReceivedWebhook]]:
    """A function that returns the webhooks of a sale, after all are delivered."""

    def about(sale: Sale) -> list[ReceivedWebhook]:
        deadline = time.monotonic() + WITHIN_S
        while sandbox.state.contents.outbox and time.monotonic() < deadline:
            time.sleep(0.02)
        order_id = gateway_env.payment(sale).order_id
        assert order_id is not None
        return [each for each in webhook_listener.received_webhooks if order_id.encode() in each.body]

    return about


def handle_webhook(gateway_env: GatewayEnvironment, webhook: ReceivedWebhook) -> None:
    gateway_env.tracking.handle_webhook("razorpay", webhook.body, webhook.headers, gateway_env.request())


def assert_completed(gateway_env: GatewayEnvironment, sale: Sale) -> None:
    payment = gateway_env.payment(sale)
    assert payment.status is PaymentStatus.COMPLETED
    assert gateway_env.balance(sale) == sale.credits


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("currency", list(Currency))
def test_paid(gateway_env: GatewayEnvironment, payer: Payer, gateway: str, currency: Currency) -> None:
    sale = gateway_env.sell(gateway, 1_234, currency)
    back = payer.choose(sale.checkout, "pay")
    for _ in range(3):  # the browser sends its form again
        gateway_env.handle_return(sale, back.fields)
        assert_completed(gateway_env, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_concurrent_payments_of_a_quote_open_one_order(
    gateway_env: GatewayEnvironment, payer: Payer, sandbox: SandboxGateway, gateway: str
) -> None:
    organisation_id = gateway_env.open(Currency.USD)
    quote_id = gateway_env.quote(organisation_id)
    with ThreadPoolExecutor(8) as pool:
        begun = list(
            pool.map(lambda _: gateway_env.begin(organisation_id, gateway, quote_id=quote_id), range(8))
        )
    assert len({sale.payment_id for sale in begun}) == 1
    receipts = [order.receipt for order in sandbox.state.contents.orders]
    assert receipts.count(begun[0].payment_id) == 1

    gateway_env.handle_return(begun[0], payer.choose(begun[-1].checkout, "pay").fields)
    assert_completed(gateway_env, begun[0])


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_refusal_of_the_bank(gateway_env: GatewayEnvironment, payer: Payer, gateway: str) -> None:
    sale = gateway_env.sell(gateway)
    payment = gateway_env.handle_return(sale, payer.choose(sale.checkout, "fail").fields)
    assert payment.status is PaymentStatus.FAILED
    assert gateway_env.balance(sale) == 0


def test_a_second_attempt_after_a_refusal(gateway_env: GatewayEnvironment, payer: Payer) -> None:
    sale = gateway_env.sell("razorpay")
    failed = payer.choose(sale.checkout, "fail")
    paid = payer.choose(sale.checkout, "pay")
    gateway_env.handle_return(sale, paid.fields)
    assert_completed(gateway_env, sale)
    gateway_env.handle_return(sale, failed.fields)
    assert_completed(gateway_env, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_payer_cancels(gateway_env: GatewayEnvironment, payer: Payer, gateway: str) -> None:
    sale = gateway_env.sell(gateway)
    back = payer.choose(sale.checkout, "cancel")
    payment = gateway_env.handle_return(sale, back.fields)
    if payment.status is PaymentStatus.PENDING:  # Razorpay does not report it: the shop records it
        payment = gateway_env.payments.abandon(
            sale.organisation_id, sale.payment_id, context=gateway_env.request()
        ).payment
    assert payment.status is PaymentStatus.ABANDONED
    assert gateway_env.balance(sale) == 0


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_pending_payment_completes_by_a_recheck(
    gateway_env: GatewayEnvironment, payer: Payer, sandbox: SandboxGateway, gateway: str
) -> None:
    sale = gateway_env.sell(gateway)
    payer.choose(sale.checkout, "pending")
    assert gateway_env.handle_return(sale, {}).status is PaymentStatus.PENDING
    order_id = gateway_env.payment(sale).order_id
    assert order_id is not None
    sandbox.state.change_status(sandbox.state.payments_of(order_id)[0], "captured")
    gateway_env.tracking.recheck(sale.payment_id, context=gateway_env.request())
    assert_completed(gateway_env, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_an_abandoned_payment_that_is_paid_late(
    gateway_env: GatewayEnvironment, payer: Payer, sandbox: SandboxGateway, gateway: str
) -> None:
    sale = gateway_env.sell(gateway)
    payer.choose(sale.checkout, "late")
    gateway_env.payments.abandon(sale.organisation_id, sale.payment_id, context=gateway_env.request())
    order_id = gateway_env.payment(sale).order_id
    assert order_id is not None
    sandbox.state.payments_of(order_id)[0].captures_at = sandbox.state.clock_s() - 1
    sandbox.state.capture_due()
    gateway_env.tracking.follow_up(sale.payment_id, context=gateway_env.request())
    assert_completed(gateway_env, sale)


def test_a_payment_paid_twice_counts_once_and_is_flagged(
    gateway_env: GatewayEnvironment, payer: Payer
) -> None:
    before = gateway_env.differences("razorpay")
    sale = gateway_env.sell("razorpay")
    gateway_env.handle_return(sale, payer.choose(sale.checkout, "twice").fields)
    gateway_env.tracking.recheck(sale.payment_id, context=gateway_env.request())
    assert_completed(gateway_env, sale)
    assert {flag for flag, _, _ in gateway_env.payment(sale).flags} == {Flag.PAID_TWICE}
    assert gateway_env.differences("razorpay") - before == {"taken_twice": 1}
    refund_unexpected_payments(gateway_env, sale)
    gateway_env.tracking.recheck(sale.payment_id, context=gateway_env.request())
    assert_completed(gateway_env, sale)
    assert gateway_env.differences("razorpay") == before


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_another_amount_fails_and_is_flagged(
    gateway_env: GatewayEnvironment, payer: Payer, gateway: str
) -> None:
    before = gateway_env.differences(gateway)
    sale = gateway_env.sell(gateway)
    payment = gateway_env.handle_return(sale, payer.choose(sale.checkout, "other-amount", 1_999).fields)
    assert payment.status is PaymentStatus.FAILED
    assert {flag for flag, _, _ in payment.flags} == {Flag.AMOUNT_DIFFERS}
    assert gateway_env.balance(sale) == 0
    assert gateway_env.differences(gateway) - before == {"not_completed": 1, "amount_differs": 1}
    refund_unexpected_payments(gateway_env, sale)
    assert gateway_env.payment(sale).status is PaymentStatus.FAILED
    assert gateway_env.differences(gateway) == before


def refund_unexpected_payments(gateway_env: GatewayEnvironment, sale: Sale) -> None:
    """Refund an attempt that bought nothing, with a repeated request, and check that its flag is settled."""
    ((_, attempt, amount_minor),) = gateway_env.payment(sale).open_flags
    for _ in range(2):
        gateway_env.refunds.refund(
            sale.organisation_id,
            sale.payment_id,
            AttemptRefund(attempt),
            refund_id=f"odd-{sale.payment_id}",
            context=gateway_env.request(),
            idempotency_key=IdempotencyKey("odd", sale.payment_id, b"1"),
        )
    payment = gateway_env.payment(sale)
    assert (payment.open_flags, payment.open_refunds) == (set(), [])
    assert [refund.requested_refund.total_minor for refund in payment.refunds.values()] == [amount_minor]


def test_webhooks_in_any_order_and_any_number(
    gateway_env: GatewayEnvironment, payer: Payer, webhooks: Callable[[Sale], list[ReceivedWebhook]]
) -> None:
    sale = gateway_env.sell("razorpay")
    payer.choose(sale.checkout, "pay")
    received = webhooks(sale)
    assert len(received) == 3
    for order in itertools.permutations(received):
        for webhook in (*order, *order):
            handle_webhook(gateway_env, webhook)
    assert_completed(gateway_env, sale)


@pytest.mark.parametrize("first", ["webhook", "return"])
def test_the_webhook_and_the_return_race(
    gateway_env: GatewayEnvironment,
    payer: Payer,
    webhooks: Callable[[Sale], list[ReceivedWebhook]],
    first: str,
) -> None:
    sale = gateway_env.sell("razorpay")
    back = payer.choose(sale.checkout, "pay")
    received = webhooks(sale)
    if first == "return":
        gateway_env.handle_return(sale, back.fields)
        assert_completed(gateway_env, sale)
    for webhook in received:
        handle_webhook(gateway_env, webhook)
        if webhook is received[1]:
            assert_completed(gateway_env, sale)
    gateway_env.handle_return(sale, back.fields)
    assert_completed(gateway_env, sale)


def test_all_messages_concurrently(
    gateway_env: GatewayEnvironment, payer: Payer, webhooks: Callable[[Sale], list[ReceivedWebhook]]
) -> None:
    sale = gateway_env.sell("razorpay")
    back = payer.choose(sale.checkout, "pay")
    received = webhooks(sale)
    steps: list[Callable[[], Any]] = [
        lambda webhook=webhook: handle_webhook(gateway_env, webhook) for webhook in received
    ]  # type: ignore[misc]
    steps += [lambda: gateway_env.handle_return(sale, back.fields)] * 2
    steps += [lambda: gateway_env.tracking.recheck(sale.payment_id, context=gateway_env.request())] * 2
    with ThreadPoolExecutor(len(steps)) as pool:
        for done in [pool.submit(step) for step in steps]:
            done.result()
    assert_completed(gateway_env, sale)


def test_a_forged_webhook_and_a_return_of_another_payment_change_nothing(
    gateway_env: GatewayEnvironment, payer: Payer, webhooks: Callable[[Sale], list[ReceivedWebhook]]
) -> None:
    paid, unpaid = gateway_env.sell("razorpay"), gateway_env.sell("razorpay")
    back = payer.choose(paid.checkout, "pay")
    [captured] = [each for each in webhooks(paid) if b'"payment.captured"' in each.body]
    orders = [gateway_env.payment(sale).order_id or "" for sale in (paid, unpaid)]
    forged = captured.body.replace(orders[0].encode(), orders[1].encode())
    with pytest.raises(InvalidWebhookSignature):
        handle_webhook(gateway_env, captured._replace(body=forged))
    with pytest.raises(InvalidWebhookSignature):
        handle_webhook(gateway_env, captured._replace(body=msgspec.json.format(captured.body)))
    assert gateway_env.handle_return(unpaid, back.fields).status is PaymentStatus.PENDING
    assert gateway_env.balance(unpaid) == 0
    gateway_env.tracking.recheck(paid.payment_id, context=gateway_env.request())


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.SLOW, Fault.ERROR_500])
def test_the_gateway_is_down_while_an_order_is_opened(
    gateway_env: GatewayEnvironment,
    payer: Payer,
    *,
    sandbox: SandboxGateway,
    proxy: FaultyProxy,
    gateway: str,
    fault: Fault,
) -> None:
    organisation_id = gateway_env.open(Currency.USD)
    quote_id = gateway_env.quote(organisation_id)
    proxy.break_requests(Fault.NONE, fault)
    with pytest.raises(GatewayUnavailable):
        gateway_env.begin(organisation_id, gateway, quote_id=quote_id)
    orders = [order for order in sandbox.state.contents.orders if order.receipt.startswith(quote_id)]
    if gateway == "payglocal" and orders:
        # Nobody got the link to its page, so nobody can pay it; a new quote starts a new payment.
        quote_id = gateway_env.quote(organisation_id)
    sale = gateway_env.begin(organisation_id, gateway, quote_id=quote_id)
    gateway_env.handle_return(sale, payer.choose(sale.checkout, "pay").fields)
    assert_completed(gateway_env, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_gateway_is_down_when_the_payer_returns(
    gateway_env: GatewayEnvironment, payer: Payer, proxy: FaultyProxy, gateway: str
) -> None:
    sale = gateway_env.sell(gateway)
    back = payer.choose(sale.checkout, "pay")
    proxy.break_requests(Fault.CUT_BEFORE)
    with pytest.raises(GatewayUnavailable):
        gateway_env.handle_return(sale, back.fields)
    assert gateway_env.payment(sale).status is PaymentStatus.PENDING
    gateway_env.tracking.follow_up(sale.payment_id, context=gateway_env.request())
    assert_completed(gateway_env, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.SLOW])
def test_a_refund_happens_once_with_lost_responses(
    gateway_env: GatewayEnvironment, payer: Payer, proxy: FaultyProxy, gateway: str, fault: Fault
) -> None:
    before = gateway_env.differences(gateway)
    sale = gateway_env.sell(gateway, 2_000)
    gateway_env.handle_return(sale, payer.choose(sale.checkout, "pay").fields)
    refund_id = f"refund-{sale.payment_id}"
    proxy.break_requests(Fault.NONE, fault)
    asked = gateway_env.refunds.refund(
        sale.organisation_id,
        sale.payment_id,
        CreditRefund(500),
        refund_id=refund_id,
        context=gateway_env.request(),
    )
    assert asked.payment.open_refunds, "the credits are taken back, the money is pending"
    assert gateway_env.balance(sale) == 1_500
    for _ in range(2):
        gateway_env.tracking.follow_up(sale.payment_id, context=gateway_env.request())
        assert gateway_env.payment(sale).status is PaymentStatus.REFUNDED
        assert gateway_env.balance(sale) == 1_500
    assert gateway_env.differences(gateway) == before


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_concurrent_partial_refunds_happen_once(
    gateway_env: GatewayEnvironment,
    payer: Payer,
    sandbox: SandboxGateway,
    *,
    adapters: dict[str, PaymentGateway],
    ledger_url: str,
    gateway: str,
) -> None:
    before = gateway_env.differences(gateway)
    sale = gateway_env.sell_custom(gateway, 100_000)
    gateway_env.handle_return(sale, payer.choose(sale.checkout, "pay").fields)
    with closing(open_ledger(ledger_url)) as ledger:
        tills = [gateway_env, open_gateway_env(ledger, adapters, ledger_url)]

        def give_back(number: int) -> None:
            till = tills[number % 2]
            till.refunds.refund(
                sale.organisation_id,
                sale.payment_id,
                FeeRefund(1_000 + number),
                refund_id=f"part-{number}-{sale.payment_id}",
                context=gateway_env.request(),
            )
            till.tracking.follow_up(sale.payment_id, context=gateway_env.request())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(give_back, range(16)))
    payment = gateway_env.payment(sale)
    assert payment.gateway_payment_id is not None
    assert not payment.open_refunds
    asked = {
        refund.requested_refund.refund_id: refund.requested_refund.total_minor
        for refund in payment.refunds.values()
    }
    assert len(asked) == 16
    given = sandbox.state.refunds_of(payment.gateway_payment_id)
    assert sorted((refund.receipt or "", refund.amount_minor) for refund in given) == sorted(asked.items())
    gateway_env.tracking.recheck(sale.payment_id, context=gateway_env.request())
    assert not gateway_env.payment(sale).flags
    assert gateway_env.differences(gateway) == before


def test_a_purchase_recorded_by_staff_is_a_known_payment(
    gateway_env: GatewayEnvironment, payer: Payer, adapters: dict[str, PaymentGateway], order_request: Any
) -> None:
    before = gateway_env.differences("razorpay")
    opened = adapters["razorpay"].open_order(order_request(2_000, "USD"))
    payer.choose(opened.checkout, "pay")
    [paid] = adapters["razorpay"].attempts(opened.order_id)
    assert gateway_env.differences("razorpay") - before == {"unknown_payment": 1}
    credits_of(gateway_env.ledger).commands.record_purchase(
        gateway_env.open(Currency.USD),
        1_000,
        payment_id=paid.gateway_payment_id,
        order_id=opened.order_id,
        gateway="razorpay",
        context=gateway_env.request(),
    )
    assert gateway_env.differences("razorpay") == before


def test_a_payment_unknown_to_the_ledger_is_reported(
    gateway_env: GatewayEnvironment, payer: Payer, adapters: dict[str, PaymentGateway], order_request: Any
) -> None:
    before = gateway_env.differences("razorpay")
    sale = gateway_env.sell("razorpay")
    payer.choose(sale.checkout, "pay")  # no webhook arrives, and the browser never returns
    payer.choose(adapters["razorpay"].open_order(order_request()).checkout, "pay")
    assert gateway_env.differences("razorpay") - before == {"not_completed": 1, "unknown_payment": 1}
    gateway_env.tracking.follow_up(sale.payment_id, context=gateway_env.request())
    assert gateway_env.differences("razorpay") - before == {"unknown_payment": 1}
    long_ago = gateway_env.request().at.date() - timedelta(days=30)
    assert not gateway_env.differences("razorpay", long_ago, long_ago), "it was not captured then"
