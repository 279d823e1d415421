"""The use cases of payments on a real database: from a quote to credits, and refunds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from domain.credits.errors import RefundExceedsPurchase
from domain.credits.events import CreditsPurchased
from domain.credits.ledger import Ledger
from domain.payments.errors import (
    BilledByAgreement,
    GatewayNotFound,
    PaymentClosed,
    PaymentNotFound,
    PaymentNotRefundable,
    ProAlreadyActive,
    QuoteExpired,
    QuoteNotFound,
)
from domain.payments.events import Flag, PaymentStatus
from domain.payments.gateway import (
    Attempt,
    AttemptStatus,
    GatewayUnavailable,
    InvalidWebhookSignature,
)
from domain.payments.payment import Payment
from domain.payments.ports import ReturnUrls
from domain.payments.quotes import PurchasePlan, PurchaseQuote
from domain.payments.refunds import CreditRefund, RefundRequest
from domain.payments.repository import PaymentResult
from domain.payments.tracking import NEVER_PAID
from domain.pricing.plans import Plan
from domain.pricing.price_book import CurrencyChange, Edition, PriceBook
from domain.shared.command_context import CommandContext
from domain.shared.errors import IdempotencyConflict, InvalidInput
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Currency
from infra.event_store.recorder import event_store_of
from infra.payments.payment_records import PostgresQuoteStore
from infra.service.composition import credits_of, open_ledger, payments_of
from tests.payment_gateway import SIGNATURE, InMemoryGateway

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ORG = "org-4711"
PAYG, PRO = PurchasePlan.PAY_AS_YOU_GO, PurchasePlan.PRO


class PaymentEnvironment:
    """Payments of one organisation, with a clock that the test moves."""

    def __init__(self, ledger: Ledger, name: str = ORG) -> None:
        self.ledger = ledger
        self.name = name
        self.gateway = InMemoryGateway()
        services = payments_of(
            ledger,
            {"bookpay": self.gateway},
            lambda payment_id: ReturnUrls(f"https://shop.example/{payment_id}", "https://shop.example/"),
        )
        self.payments = services.payments
        self.tracking = services.tracking
        self.refunds = services.refunds
        self.top_ups = services.top_ups
        self.now = NOW
        self._numbers = count(1)
        credits_of(ledger).commands.open_organisation(
            name, currency=Currency.INR, trial_credits=0, context=self.request()
        )

    def request(self) -> CommandContext:
        return CommandContext(self.now, "u-1", "request-1")

    def quote(self, credits_count: int = 1_000, plan: PurchasePlan = PAYG) -> PurchaseQuote:
        return self.payments.quote(
            self.name,
            plan,
            credits_count,
            quote_id=f"{self.name}-quote-{next(self._numbers)}",
            context=self.request(),
        )

    def quote_custom(self, amount_minor: int = 500_000, remark: str = "a banner") -> PurchaseQuote:
        return self.payments.quote(
            self.name,
            PurchasePlan.CUSTOM,
            0,
            amount_minor=amount_minor,
            remark=remark,
            quote_id=f"{self.name}-quote-{next(self._numbers)}",
            context=self.request(),
        )

    def begin(self, quoted: PurchaseQuote | None = None, **options: Any) -> PaymentResult:
        quoted = quoted or self.quote()
        return self.payments.begin(
            self.name,
            quoted.quote_id,
            options.pop("gateway", "bookpay"),
            payment_id=options.pop("payment_id", f"{self.name}-payment-{next(self._numbers)}"),
            context=self.request(),
            **options,
        )

    def order(self, credits_count: int = 1_000, plan: PurchasePlan = PAYG) -> Payment:
        return self.begin(self.quote(credits_count, plan)).payment

    def record_attempt(self, attempt: Attempt) -> Payment:
        return self.tracking.record_attempt("bookpay", attempt, self.request()).payment

    def pay(self, payment: Payment, **how: Any) -> Payment:
        assert payment.order_id is not None
        return self.record_attempt(self.gateway.pay(payment.order_id, **how))

    def buy(self, credits_count: int = 1_000, plan: PurchasePlan = PAYG) -> Payment:
        return self.pay(self.order(credits_count, plan))

    def recheck(self, payment: Payment) -> Payment:
        return self.tracking.recheck(payment.terms.payment_id, context=self.request()).payment

    def follow_up(self, payment: Payment) -> Payment:
        return self.tracking.follow_up(payment.terms.payment_id, context=self.request()).payment

    def refund(self, payment: Payment, credits_count: int | None = None, **options: Any) -> Payment:
        return self.give_back(payment, CreditRefund(credits_count), **options)

    def give_back(self, payment: Payment, back: RefundRequest, **options: Any) -> Payment:
        return self.refunds.refund(
            self.name,
            payment.terms.payment_id,
            back,
            refund_id=f"{self.name}-refund-{next(self._numbers)}",
            context=self.request(),
            **options,
        ).payment

    @property
    def balance(self) -> int:
        return self.ledger.organisation(self.name).balance

    @property
    def plan(self) -> Plan:
        return self.ledger.organisation(self.name).plan

    def change_plan(self, plan: Plan, expires_at: datetime | None = None) -> None:
        credits_of(self.ledger).commands.change_plan(
            self.name, plan, expires_at=expires_at, context=self.request()
        )


@pytest.fixture
def payment_env(service_database: str) -> Iterator[PaymentEnvironment]:
    with closing(open_ledger(service_database)) as ledger:
        yield PaymentEnvironment(ledger)


def flags(payment: Payment) -> set[Flag]:
    return {flag for flag, _, _ in payment.flags}


class TestQuotes:
    def test_credits_cost_the_price_and_the_tax(self, payment_env: PaymentEnvironment) -> None:
        quoted = payment_env.quote(1_000)
        terms = quoted.terms
        assert [line.item for line in quoted.lines] == ["credits"]
        assert (terms.credits, terms.amount_minor, terms.tax_minor) == (1_000, 150_000, 27_000)
        assert terms.price_version == "published-1"

    def test_the_organisations_own_price_wins(self, payment_env: PaymentEnvironment) -> None:
        credits_of(payment_env.ledger).commands.change_price(ORG, 1_000_000, context=payment_env.request())
        assert payment_env.quote(1_000).terms.amount_minor == 100_000
        credits_of(payment_env.ledger).commands.change_price(ORG, 0, context=payment_env.request())
        assert payment_env.quote(1_000).terms.amount_minor == 150_000

    @pytest.mark.parametrize(("credits_count", "items"), [(0, ["pro"]), (1_000, ["pro", "credits"])])
    def test_pro_with_or_without_credits(
        self, payment_env: PaymentEnvironment, credits_count: int, items: list[str]
    ) -> None:
        quoted = payment_env.quote(credits_count, PRO)
        assert [line.item for line in quoted.lines] == items
        assert quoted.terms.fee_minor == 1_000_000
        assert quoted.terms.total_minor == (1_000_000 + 150 * credits_count) * 118 // 100

    @pytest.mark.parametrize(("credits_count", "plan"), [(999, PAYG), (0, PAYG), (1, PRO)])
    def test_fewer_than_the_minimum_are_not_sold(
        self, payment_env: PaymentEnvironment, credits_count: int, plan: PurchasePlan
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            payment_env.quote(credits_count, plan)
        assert refusal.value.field == "credits"

    @pytest.mark.parametrize("plan", [PAYG, PRO])
    def test_credits_above_the_maximum_payment_are_not_quoted(
        self, payment_env: PaymentEnvironment, plan: PurchasePlan
    ) -> None:
        """At 1.50 per credit and 18 % tax, 10,000,000,000.00 buys about 5,649 million credits."""
        with pytest.raises(InvalidInput, match="at most INR 10,000,000,000") as refusal:
            payment_env.quote(5_650_000_000, plan)
        assert refusal.value.field == "credits"
        assert payment_env.begin(payment_env.quote(5_649_000_000 - 10_000, plan)).checkout is not None
        credits_of(payment_env.ledger).commands.change_price(ORG, 1, context=payment_env.request())
        with pytest.raises(InvalidInput):
            payment_env.quote(10**12 + 1, plan)

    def test_pro_is_not_sold_twice_and_nothing_with_custom_billing(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment_env.change_plan(Plan.PRO, NOW + timedelta(days=1))
        with pytest.raises(ProAlreadyActive):
            payment_env.quote(0, PRO)
        payment_env.now += timedelta(days=1)
        payment_env.quote(0, PRO)
        payment_env.change_plan(Plan.ENTERPRISE)
        for quote in (payment_env.quote, payment_env.quote_custom):
            with pytest.raises(BilledByAgreement):
                quote()

    def test_a_custom_amount_plus_tax(self, payment_env: PaymentEnvironment) -> None:
        quoted = payment_env.quote_custom()
        assert [(line.item, line.credits, line.amount_minor) for line in quoted.lines] == [
            ("custom", 0, 500_000)
        ]
        assert (quoted.terms.credits, quoted.terms.total_minor, quoted.remark) == (0, 590_000, "a banner")
        assert payment_env.payments.find_quote(ORG, quoted.quote_id) == quoted
        assert payment_env.quote_custom(85).terms.total_minor == 100

    @pytest.mark.parametrize("amount_minor", [0, -1, 84, 847_457_627_120, 10**12])
    def test_an_amount_out_of_range_is_not_quoted(
        self, payment_env: PaymentEnvironment, amount_minor: int
    ) -> None:
        """With 18 % tax, a payment of 10,000,000,000.00 has an amount of 8,474,576,271.19; one of 1.00 has
        0.85.
        """
        with pytest.raises(InvalidInput) as refusal:
            payment_env.quote_custom(amount_minor)
        assert refusal.value.field == "amount_minor"
        assert payment_env.begin(payment_env.quote_custom(847_457_627_119)).checkout is not None

    @pytest.mark.parametrize(
        ("plan", "options", "fields"),
        [
            (PurchasePlan.CUSTOM, {}, ["credits", "amount_minor", "remark"]),
            (PurchasePlan.CUSTOM, {"amount_minor": 1, "remark": " "}, ["credits", "remark"]),
            (PAYG, {"amount_minor": 1, "remark": "a banner"}, ["amount_minor", "remark"]),
            (PRO, {"amount_minor": 1}, ["amount_minor"]),
        ],
    )
    def test_an_amount_and_credits_do_not_go_together(
        self, payment_env: PaymentEnvironment, plan: PurchasePlan, options: dict[str, Any], fields: list[str]
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            payment_env.payments.quote(
                ORG, plan, 1_000, **options, quote_id="q", context=payment_env.request()
            )
        assert [field for field, _ in refusal.value.field_errors] == fields

    def test_a_payment_uses_its_quote_after_changes(self, payment_env: PaymentEnvironment) -> None:
        quoted = payment_env.quote()
        credits_of(payment_env.ledger).commands.change_price(ORG, 9_000_000, context=payment_env.request())
        assert payment_env.begin(quoted).payment.terms.total_minor == 177_000

    def test_a_quote_expires(self, payment_env: PaymentEnvironment) -> None:
        quoted = payment_env.quote()
        payment_env.now = quoted.expires_at
        with pytest.raises(QuoteExpired):
            payment_env.begin(quoted)

    def test_an_unknown_quote(self, payment_env: PaymentEnvironment) -> None:
        with pytest.raises(QuoteNotFound):
            payment_env.payments.begin(
                ORG, "quote-x", "bookpay", payment_id="p", context=payment_env.request()
            )


class TestBeginning:
    def test_a_payment_opens_an_order_with_a_page(self, payment_env: PaymentEnvironment) -> None:
        begun = payment_env.begin()
        assert begun.payment.status is PaymentStatus.PENDING
        assert begun.checkout is not None
        order = payment_env.gateway.orders[str(begun.payment.order_id)]
        assert (order.amount_minor, order.currency, order.description) == (177_000, "INR", "1,000 credits")

    def test_a_quote_has_one_payment(self, payment_env: PaymentEnvironment) -> None:
        quoted = payment_env.quote()
        with ThreadPoolExecutor(4) as pool:
            begun = list(
                pool.map(lambda number: payment_env.begin(quoted, payment_id=f"p-{number}"), range(4))
            )
        assert len({each.payment.terms.payment_id for each in begun}) == 1
        assert len(payment_env.gateway.orders) == 1
        assert all(each.checkout for each in begun)
        assert sorted(each.repeated for each in begun) == [False, True, True, True]

    def test_a_repeated_request_gets_its_payment_and_another_request_is_refused(
        self, payment_env: PaymentEnvironment
    ) -> None:
        quoted = payment_env.quote()
        first = payment_env.begin(quoted, idempotency_key=IdempotencyKey("payments", "key", b"1"))
        again = payment_env.begin(quoted, idempotency_key=IdempotencyKey("payments", "key", b"1"))
        assert again.payment.terms.payment_id == first.payment.terms.payment_id
        assert (first.repeated, again.repeated) == (False, True)
        with pytest.raises(IdempotencyConflict):
            payment_env.begin(quoted, idempotency_key=IdempotencyKey("payments", "key", b"2"))

    def test_an_unavailable_gateway_is_called_again(self, payment_env: PaymentEnvironment) -> None:
        quoted = payment_env.quote()
        payment_env.gateway.is_down = True
        with pytest.raises(GatewayUnavailable):
            payment_env.begin(quoted, payment_id="payment-x")
        assert payment_env.payments.payment("payment-x").status is PaymentStatus.CREATED
        payment_env.gateway.is_down = False
        assert payment_env.begin(quoted).payment.terms.payment_id == "payment-x"

    def test_an_order_that_is_refused_fails_the_payment(self, payment_env: PaymentEnvironment) -> None:
        payment_env.gateway.refuses_orders = True
        begun = payment_env.begin()
        assert (begun.payment.status, begun.checkout) == (PaymentStatus.FAILED, None)

    def test_an_unknown_gateway(self, payment_env: PaymentEnvironment) -> None:
        with pytest.raises(GatewayNotFound):
            payment_env.begin(gateway="cash")
        payment_env.gateway.currencies = frozenset({"USD"})
        with pytest.raises(GatewayNotFound):
            payment_env.begin()

    def test_the_link_to_the_page_can_be_requested_again(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.order()
        checkout = payment_env.payments.checkout
        assert checkout(ORG, payment.terms.payment_id, context=payment_env.request()).checkout is not None
        payment_env.pay(payment)
        assert checkout(ORG, payment.terms.payment_id, context=payment_env.request()).checkout is None

    def test_payments_of_other_organisations_are_unknown(self, payment_env: PaymentEnvironment) -> None:
        payment_id = payment_env.order().terms.payment_id
        credits_of(payment_env.ledger).commands.open_organisation("org-2", context=payment_env.request())
        with pytest.raises(PaymentNotFound):
            payment_env.payments.abandon("org-2", payment_id, context=payment_env.request())
        with pytest.raises(PaymentNotFound):
            payment_env.payments.payment("payment-x")


class TestCompleting:
    def test_a_paid_payment_adds_credits_and_plan(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy()
        assert payment.status is PaymentStatus.COMPLETED
        assert (payment_env.balance, payment_env.plan) == (1_000, Plan.PAY_AS_YOU_GO)
        assert payment.purchase is not None
        stream = payment_env.ledger.organisation(ORG).id
        bought = list(payment_env.ledger.events.get(stream))[payment.purchase - 1].event
        assert isinstance(bought, CreditsPurchased)
        assert (bought.payment_id, bought.order_id) == (payment.gateway_payment_id, payment.order_id)
        assert (bought.amount_minor, bought.tax_minor) == (150_000, 27_000)

    def test_return_webhook_and_recheck_race_for_one_completion(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.order()
        attempt = payment_env.gateway.pay(str(payment.order_id))
        news = [lambda: payment_env.record_attempt(attempt)] * 4 + [lambda: payment_env.recheck(payment)] * 4
        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(one) for one in news]:
                assert each.result().status is PaymentStatus.COMPLETED
        assert payment_env.balance == 1_000

    def test_pro_lasts_a_year_and_brings_its_credits(self, payment_env: PaymentEnvironment) -> None:
        payment_env.buy(1_000, PRO)
        organisation = payment_env.ledger.organisation(ORG)
        assert (organisation.plan, organisation.balance) == (Plan.PRO, 1_000)
        assert organisation.plan_expires_at == NOW + timedelta(days=365)
        payment_env.now += timedelta(days=365)
        credits_of(payment_env.ledger).commands.expire_pro(ORG, context=payment_env.request())
        assert payment_env.plan is Plan.PAY_AS_YOU_GO

    def test_pro_that_was_added_meanwhile_is_flagged_and_the_credits_are_added(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.order(1_000, PRO)
        payment_env.change_plan(Plan.PRO, NOW + timedelta(days=9))
        payment = payment_env.pay(payment)
        assert payment.status is PaymentStatus.COMPLETED
        assert flags(payment) == {Flag.ALREADY_PRO}
        assert payment_env.ledger.organisation(ORG).plan_expires_at == NOW + timedelta(days=9)
        assert payment_env.balance == 1_000

    def test_credits_recorded_by_staff_are_not_added_again(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.order()
        attempt = payment_env.gateway.pay(str(payment.order_id))
        credits_of(payment_env.ledger).commands.record_purchase(
            ORG,
            1_000,
            payment_id=attempt.gateway_payment_id,
            order_id="?",
            gateway="bookpay",
            context=payment_env.request(),
        )
        payment = payment_env.record_attempt(attempt)
        assert (payment.status, payment.purchase) == (PaymentStatus.COMPLETED, None)
        assert flags(payment) == {Flag.CREDITS_RECORDED_BEFORE}
        assert payment_env.balance == 1_000

    def test_a_custom_payment_is_recorded_and_adds_nothing(self, payment_env: PaymentEnvironment) -> None:
        begun = payment_env.payments.begin_custom(
            ORG, 500_000, "a banner", "bookpay", payment_id="payment-c", context=payment_env.request()
        )
        payment = payment_env.pay(begun.payment)
        assert (payment.status, payment.terms.total_minor) == (PaymentStatus.COMPLETED, 590_000)
        assert payment_env.balance == 0
        assert PostgresQuoteStore(payment_env.ledger).remarks(ORG, ["payment-c"]) == {"payment-c": "a banner"}

    def test_a_quoted_amount_is_recorded_with_its_remark_and_adds_nothing(
        self, payment_env: PaymentEnvironment
    ) -> None:
        quoted = payment_env.quote_custom()
        payments = [payment_env.pay(payment_env.begin(quoted).payment), payment_env.begin(quoted).payment]
        first, again = (payment.terms.payment_id for payment in payments)
        assert first == again, "a quote has one payment"
        assert (payments[1].status, payments[1].purchase) == (PaymentStatus.COMPLETED, None)
        assert payment_env.balance == 0
        assert payment_env.payments.remarks(ORG, [first]) == {first: "a banner"}
        recorded = [envelope.event for envelope in payment_env.ledger.events.get(payments[1].id)]
        assert "banner" not in repr(recorded), "it is stored outside the log"

    def test_the_remark_is_kept_when_a_payment_is_continued(self, payment_env: PaymentEnvironment) -> None:
        quoted = payment_env.quote_custom()
        payment_env.gateway.is_down = True
        with pytest.raises(GatewayUnavailable):
            payment_env.begin(quoted, payment_id="payment-c")
        payment_env.gateway.is_down = False
        assert (
            payment_env.follow_up(payment_env.payments.payment("payment-c")).status is PaymentStatus.PENDING
        )
        assert payment_env.payments.remarks(ORG, ["payment-c"]) == {"payment-c": "a banner"}

    def test_a_payment_completes_without_erased_data(self, payment_env: PaymentEnvironment) -> None:
        quoted = payment_env.quote_custom()
        payment_env.gateway.is_down = True
        with pytest.raises(GatewayUnavailable):
            payment_env.begin(quoted, payment_id="payment-c")
        payment_env.gateway.is_down = False
        with PostgresQuoteStore(payment_env.ledger)._datastore.get_connection() as connection:
            connection.execute("DELETE FROM ledger.purchase_quotes")
            connection.execute("DELETE FROM ledger.payment_remarks")
        assert (
            payment_env.follow_up(payment_env.payments.payment("payment-c")).status is PaymentStatus.PENDING
        )
        assert payment_env.payments.remarks(ORG, ["payment-c"]) == {}

    def test_an_unknown_order(self, payment_env: PaymentEnvironment) -> None:
        with pytest.raises(PaymentNotFound):
            payment_env.record_attempt(Attempt("pay_1", "order_x", AttemptStatus.CAPTURED, 1, "INR"))


class TestAttempts:
    def test_a_signed_webhook_counts(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.order()
        body = payment_env.gateway.notification_of(payment_env.gateway.pay(str(payment.order_id)))
        with pytest.raises(InvalidWebhookSignature):
            payment_env.tracking.handle_webhook(
                "bookpay", body, {"x-signature": "mine"}, payment_env.request()
            )
        assert payment_env.balance == 0
        for _ in range(2):
            payment_env.tracking.handle_webhook(
                "bookpay", body, {"x-signature": SIGNATURE}, payment_env.request()
            )
        assert payment_env.balance == 1_000

    def test_a_webhook_of_another_kind_is_accepted(self, payment_env: PaymentEnvironment) -> None:
        body = b'{"notification_id": "n", "kind": "settlement", "attempt": null}'
        payment_env.tracking.handle_webhook(
            "bookpay", body, {"x-signature": SIGNATURE}, payment_env.request()
        )

    @pytest.mark.parametrize("signature", [SIGNATURE, "forged"])
    def test_a_return_without_a_signature_rechecks_the_payment(
        self, payment_env: PaymentEnvironment, signature: str
    ) -> None:
        payment = payment_env.order()
        body = payment_env.gateway.notification_of(payment_env.gateway.pay(str(payment.order_id)))
        fields = {"notice": body.decode(), "by": signature}
        payment_env.tracking.handle_return(payment.terms.payment_id, fields, payment_env.request())
        assert payment_env.balance == 1_000

    def test_a_forged_return_adds_nothing(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.order()
        forged = Attempt("pay_x", str(payment.order_id), AttemptStatus.CAPTURED, 177_000, "INR")
        fields = {"notice": payment_env.gateway.notification_of(forged).decode(), "by": "forged"}
        back = payment_env.tracking.handle_return(payment.terms.payment_id, fields, payment_env.request())
        assert back.payment.status is PaymentStatus.PENDING

    def test_a_return_of_another_order_does_not_affect_this_one(
        self, payment_env: PaymentEnvironment
    ) -> None:
        paid, payment = payment_env.order(), payment_env.order()
        body = payment_env.gateway.notification_of(payment_env.gateway.pay(str(paid.order_id)))
        fields = {"notice": body.decode(), "by": SIGNATURE}
        back = payment_env.tracking.handle_return(payment.terms.payment_id, fields, payment_env.request())
        assert back.payment.status is PaymentStatus.PENDING

    def test_the_latest_attempt_counts_unless_one_was_captured(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.order()
        order_id = str(payment.order_id)
        payment_env.gateway.pay(order_id, AttemptStatus.FAILED)
        payment_env.gateway.pay(order_id, AttemptStatus.PENDING)
        assert payment_env.recheck(payment).status is PaymentStatus.PENDING
        payment_env.gateway.pay(order_id)
        payment_env.gateway.pay(order_id)
        payment_env.gateway.pay(order_id, AttemptStatus.FAILED)
        payment = payment_env.recheck(payment)
        assert payment.status is PaymentStatus.COMPLETED
        assert flags(payment) == {Flag.PAID_TWICE}

    def test_a_gateway_that_forgot_the_order_changes_nothing(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.order()
        payment_env.gateway.attempts_of.clear()
        assert payment_env.recheck(payment).status is PaymentStatus.PENDING

    def test_another_amount_fails_and_is_flagged(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.pay(payment_env.order(), amount_minor=1)
        assert (payment.status, flags(payment)) == (PaymentStatus.FAILED, {Flag.AMOUNT_DIFFERS})
        assert payment_env.balance == 0


class TestEnding:
    def test_an_abandoned_payment_that_is_paid_after_all(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.order()
        gave_up = payment_env.payments.abandon(ORG, payment.terms.payment_id, context=payment_env.request())
        assert gave_up.payment.status is PaymentStatus.ABANDONED
        assert payment_env.pay(payment).status is PaymentStatus.COMPLETED
        with pytest.raises(PaymentClosed):
            payment_env.payments.abandon(ORG, payment.terms.payment_id, context=payment_env.request())

    def test_a_payment_unpaid_for_a_day_is_abandoned_and_can_still_complete(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.order()
        payment_env.now += timedelta(hours=23)
        assert payment_env.follow_up(payment).status is PaymentStatus.PENDING
        payment_env.now += timedelta(hours=1)
        assert payment_env.follow_up(payment).status is PaymentStatus.ABANDONED
        events = list(payment_env.ledger.events.get(payment.id))
        assert events[-1].event.reason == NEVER_PAID  # type: ignore[attr-defined]
        payment_env.gateway.pay(str(payment.order_id))
        assert payment_env.follow_up(payment).status is PaymentStatus.COMPLETED
        assert payment_env.follow_up(payment).status is PaymentStatus.COMPLETED

    def test_a_payment_that_a_crash_left_without_an_order_gets_one(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment_env.gateway.is_down = True
        with pytest.raises(GatewayUnavailable):
            payment_env.begin(payment_id="payment-x")
        payment_env.gateway.is_down = False
        assert (
            payment_env.follow_up(payment_env.payments.payment("payment-x")).status is PaymentStatus.PENDING
        )


def end_payment_locks(payment_env: PaymentEnvironment) -> None:
    """Terminate the database connections that hold payment locks, as a failover does."""
    with (
        event_store_of(payment_env.ledger).recorder.datastore.get_connection() as connection,
        connection.transaction(),
    ):
        connection.execute("SET LOCAL ROLE NONE")
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_database ON oid = database"
            " WHERE locktype = 'advisory' AND datname = current_database() AND pid <> pg_backend_pid()"
        )


class TestRefunds:
    def test_unspent_credits_are_refunded(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.refund(payment_env.buy(), 400)
        assert payment.status is PaymentStatus.REFUNDED
        assert payment_env.balance == 600
        ((request, _),) = payment_env.gateway.refunds.values()
        assert request.amount_minor == 70_800
        payment_env.refund(payment)
        assert (payment_env.balance, payment_env.gateway.taken_minor) == (0, 0)
        with pytest.raises(RefundExceedsPurchase):
            payment_env.refund(payment)

    def test_concurrent_repeats_get_the_same_response(self, payment_env: PaymentEnvironment) -> None:
        payment_id = payment_env.buy().terms.payment_id
        idempotency_key = IdempotencyKey("refunds", "key", b"1")

        def refund(number: int) -> PaymentResult:
            return payment_env.refunds.refund(
                ORG,
                payment_id,
                CreditRefund(600),
                refund_id=f"refund-{number}",
                context=payment_env.request(),
                idempotency_key=idempotency_key,
            )

        with ThreadPoolExecutor(8) as pool:
            refunds = list(pool.map(refund, range(8)))
        assert len({each.refund_id for each in refunds}) == 1
        assert payment_env.balance == 400
        assert len(payment_env.gateway.refunds) == 1

    def test_an_unavailable_gateway_is_called_until_it_responds(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.buy()
        payment_env.gateway.is_down = True
        assert payment_env.refund(payment).status is PaymentStatus.COMPLETED
        assert payment_env.balance == 0
        payment_env.gateway.is_down = False
        assert payment_env.follow_up(payment).status is PaymentStatus.REFUNDED
        assert payment_env.gateway.taken_minor == 0

    def test_a_slow_refund(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy()
        payment_env.gateway.refunds_pend = True
        assert payment_env.refund(payment).status is PaymentStatus.COMPLETED
        payment_env.gateway.refunds_pend = False
        assert payment_env.follow_up(payment).status is PaymentStatus.REFUNDED

    def test_a_refusal_restores_the_credits(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy()
        payment_env.gateway.refuses_refunds = True
        payment = payment_env.refund(payment, 400)
        assert payment.status is PaymentStatus.COMPLETED
        assert flags(payment) == {Flag.REFUND_REFUSED}
        assert payment_env.balance == 1_000
        payment_env.gateway.refuses_refunds = False
        assert payment_env.refund(payment).status is PaymentStatus.REFUNDED

    def test_a_refund_that_fails_at_the_gateway_is_a_refusal(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy()
        payment_env.gateway.refunds_fail = True
        assert flags(payment_env.refund(payment, 400)) == {Flag.REFUND_REFUSED}
        assert payment_env.balance == 1_000

    def test_two_reports_of_a_refusal_restore_the_credits_once(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy()
        payment_env.gateway.refuses_refunds = True

        def somebody_else_asks(step: str) -> None:
            if step == "before refund":
                payment_env.gateway._step = lambda _: None
                end_payment_locks(payment_env)
                payment_env.follow_up(payment)

        payment_env.gateway._step = somebody_else_asks
        payment_env.refund(payment, 400)
        assert payment_env.balance == 1_000

    def test_included_credits_are_taken_back_without_money(self, payment_env: PaymentEnvironment) -> None:
        in_rupees = CurrencyChange(pro_credits=500)
        edition = Edition("with credits", NOW, currencies={Currency.INR: in_rupees})
        payment_env.ledger.prices = PriceBook([edition])
        quoted = payment_env.quote(0, PRO)
        assert [(line.item, line.credits) for line in quoted.lines] == [("pro", 500)]
        payment = payment_env.refund(payment_env.pay(payment_env.begin(quoted).payment))
        assert (payment.status, payment_env.balance) == (PaymentStatus.REFUNDED, 0)
        assert payment_env.gateway.refunds == {}

    def test_a_repeated_request_refunds_once(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy()
        for _ in range(2):
            payment_env.refund(payment, 400, idempotency_key=IdempotencyKey("refunds", "key", b"1"))
        assert payment_env.balance == 600
        assert len(payment_env.gateway.refunds) == 1

    def test_an_unpaid_payment_is_not_refunded(self, payment_env: PaymentEnvironment) -> None:
        with pytest.raises(PaymentNotRefundable):
            payment_env.refund(payment_env.order())

    def test_a_plan_keeps_its_fee(self, payment_env: PaymentEnvironment) -> None:
        payment_env.refund(payment_env.buy(1_000, PRO))
        assert payment_env.gateway.taken_minor == 1_180_000
