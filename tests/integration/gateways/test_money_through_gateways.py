"""From the wish to pay to credits: the sandbox, the production adapters and the ledger, over real HTTP.

Whatever is lost, repeated, late or out of order: every credit was paid for, once, and the money that did not
become credits is named by the reconciliation.
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

from domain.gateway import GatewayUnavailable, NoticeRefused, PaymentGateway
from domain.money import Currency
from domain.payment_facts import Flag, PaymentStatus
from domain.payment_refunds import AttemptBack, CreditsBack, FeeBack
from domain.ports import Once
from infra.bootstrap import open_ledger
from infra.embedded.sandbox.server import SandboxGateway
from tests.integration.gateways.shop import Ear, Heard, Payer
from tests.integration.gateways.till import open_till
from tests.integration.gateways.wire import Fault, Wire

if TYPE_CHECKING:
    from tests.integration.gateways.till import Sale, Till

GATEWAYS = ["razorpay", "payglocal"]
WITHIN_S = 10.0


@pytest.fixture
def webhooks(ear: Ear, sandbox: SandboxGateway, till: Till) -> Callable[[Sale], list[Heard]]:
    """A function that returns the webhooks about a sale, all delivered."""

    def about(sale: Sale) -> list[Heard]:
        deadline = time.monotonic() + WITHIN_S
        while sandbox.book.contents.outbox and time.monotonic() < deadline:
            time.sleep(0.02)
        order_id = till.payment(sale).order_id
        assert order_id is not None
        return [each for each in ear.heard if order_id.encode() in each.body]

    return about


def hear(till: Till, webhook: Heard) -> None:
    till.payments.hear("razorpay", webhook.body, webhook.headers, till.request())


def assert_completed(till: Till, sale: Sale) -> None:
    payment = till.payment(sale)
    assert payment.status is PaymentStatus.COMPLETED
    assert till.balance(sale) == sale.credits


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("currency", list(Currency))
def test_paid(till: Till, payer: Payer, gateway: str, currency: Currency) -> None:
    sale = till.sell(gateway, 1_234, currency)
    back = payer.choose(sale.checkout, "pay")
    for _ in range(3):  # the browser sends its form again
        till.come_back(sale, back.fields)
        assert_completed(till, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_quote_has_one_order_however_many_pay_it_at_once(
    till: Till, payer: Payer, sandbox: SandboxGateway, gateway: str
) -> None:
    organisation_id = till.open(Currency.USD)
    quote_id = till.quote(organisation_id)
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda _: till.begin(organisation_id, gateway, quote_id=quote_id), range(8)))
    assert len({sale.payment_id for sale in begun}) == 1
    receipts = [order.receipt for order in sandbox.book.contents.orders]
    assert receipts.count(begun[0].payment_id) == 1

    till.come_back(begun[0], payer.choose(begun[-1].checkout, "pay").fields)
    assert_completed(till, begun[0])


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_bank_refuses(till: Till, payer: Payer, gateway: str) -> None:
    sale = till.sell(gateway)
    payment = till.come_back(sale, payer.choose(sale.checkout, "fail").fields)
    assert payment.status is PaymentStatus.FAILED
    assert till.balance(sale) == 0


def test_the_bank_refuses_and_the_payer_tries_again(till: Till, payer: Payer) -> None:
    sale = till.sell("razorpay")
    failed = payer.choose(sale.checkout, "fail")
    paid = payer.choose(sale.checkout, "pay")
    till.come_back(sale, paid.fields)
    assert_completed(till, sale)
    till.come_back(sale, failed.fields)
    assert_completed(till, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_payer_cancels(till: Till, payer: Payer, gateway: str) -> None:
    sale = till.sell(gateway)
    back = payer.choose(sale.checkout, "cancel")
    payment = till.come_back(sale, back.fields)
    if payment.status is PaymentStatus.PENDING:  # Razorpay knows nothing of it: the shop does
        payment = till.payments.abandon(sale.organisation_id, sale.payment_id, request=till.request()).payment
    assert payment.status is PaymentStatus.ABANDONED
    assert till.balance(sale) == 0


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_left_pending_until_it_is_asked_for(
    till: Till, payer: Payer, sandbox: SandboxGateway, gateway: str
) -> None:
    sale = till.sell(gateway)
    payer.choose(sale.checkout, "pending")
    assert till.come_back(sale, {}).status is PaymentStatus.PENDING
    order_id = till.payment(sale).order_id
    assert order_id is not None
    sandbox.book.move(sandbox.book.payments_of(order_id)[0], "captured")
    till.payments.recheck(sale.payment_id, request=till.request())
    assert_completed(till, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_paid_after_everybody_gave_it_up(
    till: Till, payer: Payer, sandbox: SandboxGateway, gateway: str
) -> None:
    sale = till.sell(gateway)
    payer.choose(sale.checkout, "late")
    till.payments.abandon(sale.organisation_id, sale.payment_id, request=till.request())
    order_id = till.payment(sale).order_id
    assert order_id is not None
    sandbox.book.payments_of(order_id)[0].captures_at = sandbox.book.clock_s() - 1
    sandbox.book.capture_due()
    till.payments.attend(sale.payment_id, request=till.request())
    assert_completed(till, sale)


def test_paid_twice_counts_once_and_the_rest_is_named(till: Till, payer: Payer) -> None:
    before = till.differences("razorpay")
    sale = till.sell("razorpay")
    till.come_back(sale, payer.choose(sale.checkout, "twice").fields)
    till.payments.recheck(sale.payment_id, request=till.request())
    assert_completed(till, sale)
    assert {flag for flag, _, _ in till.payment(sale).flags} == {Flag.PAID_TWICE}
    assert till.differences("razorpay") - before == {"taken_twice": 1}
    give_back_what_is_odd(till, sale)
    till.payments.recheck(sale.payment_id, request=till.request())
    assert_completed(till, sale)
    assert till.differences("razorpay") == before


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_another_amount_is_failed_flagged_and_named(till: Till, payer: Payer, gateway: str) -> None:
    before = till.differences(gateway)
    sale = till.sell(gateway)
    payment = till.come_back(sale, payer.choose(sale.checkout, "other-amount", 1_999).fields)
    assert payment.status is PaymentStatus.FAILED
    assert {flag for flag, _, _ in payment.flags} == {Flag.AMOUNT_DIFFERS}
    assert till.balance(sale) == 0
    assert till.differences(gateway) - before == {"not_completed": 1, "amount_differs": 1}
    give_back_what_is_odd(till, sale)
    assert till.payment(sale).status is PaymentStatus.FAILED
    assert till.differences(gateway) == before


def give_back_what_is_odd(till: Till, sale: Sale) -> None:
    """Give all back that an attempt took which pays for nothing, ask twice, and see its flag settled."""
    ((_, attempt, amount_minor),) = till.payment(sale).open_flags
    for _ in range(2):
        till.payments.refund(
            sale.organisation_id,
            sale.payment_id,
            AttemptBack(attempt),
            refund_id=f"odd-{sale.payment_id}",
            request=till.request(),
            once=Once("odd", sale.payment_id, b"1"),
        )
    payment = till.payment(sale)
    assert (payment.open_flags, payment.open_refunds) == (set(), [])
    assert [refund.asked.total_minor for refund in payment.refunds.values()] == [amount_minor]


def test_webhooks_in_any_order_and_any_number(
    till: Till, payer: Payer, webhooks: Callable[[Sale], list[Heard]]
) -> None:
    sale = till.sell("razorpay")
    payer.choose(sale.checkout, "pay")
    told = webhooks(sale)
    assert len(told) == 3
    for order in itertools.permutations(told):
        for webhook in (*order, *order):
            hear(till, webhook)
    assert_completed(till, sale)


@pytest.mark.parametrize("first", ["webhook", "return"])
def test_the_webhook_and_the_return_race(
    till: Till, payer: Payer, webhooks: Callable[[Sale], list[Heard]], first: str
) -> None:
    sale = till.sell("razorpay")
    back = payer.choose(sale.checkout, "pay")
    told = webhooks(sale)
    if first == "return":
        till.come_back(sale, back.fields)
        assert_completed(till, sale)
    for webhook in told:
        hear(till, webhook)
        if webhook is told[1]:
            assert_completed(till, sale)
    till.come_back(sale, back.fields)
    assert_completed(till, sale)


def test_all_at_once(till: Till, payer: Payer, webhooks: Callable[[Sale], list[Heard]]) -> None:
    sale = till.sell("razorpay")
    back = payer.choose(sale.checkout, "pay")
    told = webhooks(sale)
    steps: list[Callable[[], Any]] = [lambda webhook=webhook: hear(till, webhook) for webhook in told]  # type: ignore[misc]
    steps += [lambda: till.come_back(sale, back.fields)] * 2
    steps += [lambda: till.payments.recheck(sale.payment_id, request=till.request())] * 2
    with ThreadPoolExecutor(len(steps)) as pool:
        for done in [pool.submit(step) for step in steps]:
            done.result()
    assert_completed(till, sale)


def test_a_forged_webhook_and_a_return_of_another_payment_change_nothing(
    till: Till, payer: Payer, webhooks: Callable[[Sale], list[Heard]]
) -> None:
    paid, unpaid = till.sell("razorpay"), till.sell("razorpay")
    back = payer.choose(paid.checkout, "pay")
    [captured] = [each for each in webhooks(paid) if b'"payment.captured"' in each.body]
    orders = [till.payment(sale).order_id or "" for sale in (paid, unpaid)]
    forged = captured.body.replace(orders[0].encode(), orders[1].encode())
    with pytest.raises(NoticeRefused):
        hear(till, captured._replace(body=forged))
    with pytest.raises(NoticeRefused):
        hear(till, captured._replace(body=msgspec.json.format(captured.body)))
    assert till.come_back(unpaid, back.fields).status is PaymentStatus.PENDING
    assert till.balance(unpaid) == 0
    till.payments.recheck(paid.payment_id, request=till.request())


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.SLOW, Fault.ERROR_500])
def test_the_gateway_is_down_while_an_order_is_opened_then_back(
    till: Till, payer: Payer, *, sandbox: SandboxGateway, wire: Wire, gateway: str, fault: Fault
) -> None:
    organisation_id = till.open(Currency.USD)
    quote_id = till.quote(organisation_id)
    wire.break_requests(Fault.NONE, fault)
    with pytest.raises(GatewayUnavailable):
        till.begin(organisation_id, gateway, quote_id=quote_id)
    orders = [order for order in sandbox.book.contents.orders if order.receipt.startswith(quote_id)]
    if gateway == "payglocal" and orders:
        # Nobody has seen the way to its page, so nobody can pay it; a new quote starts a new one.
        quote_id = till.quote(organisation_id)
    sale = till.begin(organisation_id, gateway, quote_id=quote_id)
    till.come_back(sale, payer.choose(sale.checkout, "pay").fields)
    assert_completed(till, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_gateway_is_down_when_the_payer_comes_back(
    till: Till, payer: Payer, wire: Wire, gateway: str
) -> None:
    sale = till.sell(gateway)
    back = payer.choose(sale.checkout, "pay")
    wire.break_requests(Fault.CUT_BEFORE)
    with pytest.raises(GatewayUnavailable):
        till.come_back(sale, back.fields)
    assert till.payment(sale).status is PaymentStatus.PENDING
    till.payments.attend(sale.payment_id, request=till.request())
    assert_completed(till, sale)


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.SLOW])
def test_money_goes_back_once_whatever_is_lost(
    till: Till, payer: Payer, wire: Wire, gateway: str, fault: Fault
) -> None:
    before = till.differences(gateway)
    sale = till.sell(gateway, 2_000)
    till.come_back(sale, payer.choose(sale.checkout, "pay").fields)
    refund_id = f"refund-{sale.payment_id}"
    wire.break_requests(Fault.NONE, fault)
    asked = till.payments.refund(
        sale.organisation_id,
        sale.payment_id,
        CreditsBack(500),
        refund_id=refund_id,
        request=till.request(),
    )
    assert asked.payment.open_refunds, "the credits are gone, the money is on its way"
    assert till.balance(sale) == 1_500
    for _ in range(2):
        till.payments.attend(sale.payment_id, request=till.request())
        assert till.payment(sale).status is PaymentStatus.REFUNDED
        assert till.balance(sale) == 1_500
    assert till.differences(gateway) == before


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_parts_that_go_back_at_once_go_back_once(
    till: Till,
    payer: Payer,
    sandbox: SandboxGateway,
    *,
    adapters: dict[str, PaymentGateway],
    ledger_url: str,
    gateway: str,
) -> None:
    before = till.differences(gateway)
    sale = till.sell_custom(gateway, 100_000)
    till.come_back(sale, payer.choose(sale.checkout, "pay").fields)
    with closing(open_ledger(ledger_url)) as ledger:
        tills = [till, open_till(ledger, adapters, ledger_url)]

        def give_back(number: int) -> None:
            payments = tills[number % 2].payments
            payments.refund(
                sale.organisation_id,
                sale.payment_id,
                FeeBack(1_000 + number),
                refund_id=f"part-{number}-{sale.payment_id}",
                request=till.request(),
            )
            payments.attend(sale.payment_id, request=till.request())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(give_back, range(16)))
    payment = till.payment(sale)
    assert payment.gateway_payment_id is not None
    assert not payment.open_refunds
    asked = {refund.asked.refund_id: refund.asked.total_minor for refund in payment.refunds.values()}
    assert len(asked) == 16
    given = sandbox.book.refunds_of(payment.gateway_payment_id)
    assert sorted((refund.receipt or "", refund.amount_minor) for refund in given) == sorted(asked.items())
    till.payments.recheck(sale.payment_id, request=till.request())
    assert not till.payment(sale).flags
    assert till.differences(gateway) == before


def test_a_purchase_that_staff_recorded_is_no_unknown_payment(
    till: Till, payer: Payer, adapters: dict[str, PaymentGateway], order_request: Any
) -> None:
    before = till.differences("razorpay")
    opened = adapters["razorpay"].open_order(order_request(2_000, "USD"))
    payer.choose(opened.checkout, "pay")
    [paid] = adapters["razorpay"].attempts(opened.order_id)
    assert till.differences("razorpay") - before == {"unknown_payment": 1}
    till.ledger.record_purchase(
        till.open(Currency.USD),
        1_000,
        payment_id=paid.gateway_payment_id,
        order_id=opened.order_id,
        gateway="razorpay",
        request=till.request(),
    )
    assert till.differences("razorpay") == before


def test_money_that_the_ledger_never_heard_of_is_named(
    till: Till, payer: Payer, adapters: dict[str, PaymentGateway], order_request: Any
) -> None:
    before = till.differences("razorpay")
    sale = till.sell("razorpay")
    payer.choose(sale.checkout, "pay")  # no webhook arrives, the browser never comes back
    payer.choose(adapters["razorpay"].open_order(order_request()).checkout, "pay")
    assert till.differences("razorpay") - before == {"not_completed": 1, "unknown_payment": 1}
    till.payments.attend(sale.payment_id, request=till.request())
    assert till.differences("razorpay") - before == {"unknown_payment": 1}
    long_ago = till.request().at.date() - timedelta(days=30)
    assert not till.differences("razorpay", long_ago, long_ago), "it was not taken then"
