"""The use cases of payments on a real database: from a quote to credits, and back to money."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

import pytest

from domain.errors import (
    BillingIsCustom,
    GatewayUnknown,
    IdempotencyConflict,
    InvalidInput,
    PaymentClosed,
    PaymentNotRefundable,
    PaymentUnknown,
    ProAlready,
    QuoteExpired,
    QuoteUnknown,
    RefundExceedsPurchase,
)
from domain.facts import CreditsPurchased, Plan, Request
from domain.gateway import Attempt, AttemptStatus, GatewayUnavailable, NoticeRefused
from domain.ledger import Ledger
from domain.money import Currency
from domain.payment import Payment
from domain.payment_book import PaymentStanding, Ways
from domain.payment_facts import Flag, PaymentStatus
from domain.payment_refunds import Back, CreditsBack
from domain.payments import NEVER_PAID, Payments
from domain.ports import Once
from domain.prices import CurrencyChange, Edition, PriceBook
from domain.purchases import PurchasePlan, PurchaseQuote
from infra.bootstrap import open_ledger
from infra.event_store.recorder import LedgerEventStore
from infra.payment_desk import PostgresDesk
from tests.payment_gateway import SIGNATURE, BookGateway

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ORG = "org-4711"
PAYG, PRO = PurchasePlan.PAY_AS_YOU_GO, PurchasePlan.PRO


class Shop:
    """Payments of one organisation, at a time that a test moves."""

    def __init__(self, ledger: Ledger, name: str = ORG) -> None:
        self.ledger = ledger
        self.name = name
        self.gateway = BookGateway()
        self.payments = Payments(
            ledger,
            {"bookpay": self.gateway},
            PostgresDesk(ledger),
            lambda payment_id: Ways(f"https://shop.example/{payment_id}", "https://shop.example/"),
        )
        self.now = NOW
        self._numbers = count(1)
        ledger.open_organisation(name, currency=Currency.INR, trial_credits=0, request=self.request())

    def request(self) -> Request:
        return Request(self.now, "u-1", "request-1")

    def quote(self, credits_count: int = 1_000, plan: PurchasePlan = PAYG) -> PurchaseQuote:
        return self.payments.quote(
            self.name,
            plan,
            credits_count,
            quote_id=f"{self.name}-quote-{next(self._numbers)}",
            request=self.request(),
        )

    def quote_custom(self, amount_minor: int = 500_000, remark: str = "a banner") -> PurchaseQuote:
        return self.payments.quote(
            self.name,
            PurchasePlan.CUSTOM,
            0,
            amount_minor=amount_minor,
            remark=remark,
            quote_id=f"{self.name}-quote-{next(self._numbers)}",
            request=self.request(),
        )

    def begin(self, quoted: PurchaseQuote | None = None, **options: Any) -> PaymentStanding:
        quoted = quoted or self.quote()
        return self.payments.begin(
            self.name,
            quoted.quote_id,
            options.pop("gateway", "bookpay"),
            payment_id=options.pop("payment_id", f"{self.name}-payment-{next(self._numbers)}"),
            request=self.request(),
            **options,
        )

    def order(self, credits_count: int = 1_000, plan: PurchasePlan = PAYG) -> Payment:
        return self.begin(self.quote(credits_count, plan)).payment

    def learn(self, attempt: Attempt) -> Payment:
        return self.payments.learn("bookpay", attempt, self.request()).payment

    def pay(self, payment: Payment, **how: Any) -> Payment:
        assert payment.order_id is not None
        return self.learn(self.gateway.pay(payment.order_id, **how))

    def buy(self, credits_count: int = 1_000, plan: PurchasePlan = PAYG) -> Payment:
        return self.pay(self.order(credits_count, plan))

    def recheck(self, payment: Payment) -> Payment:
        return self.payments.recheck(payment.terms.payment_id, request=self.request()).payment

    def attend(self, payment: Payment) -> Payment:
        return self.payments.attend(payment.terms.payment_id, request=self.request()).payment

    def refund(self, payment: Payment, credits_count: int | None = None, **options: Any) -> Payment:
        return self.give_back(payment, CreditsBack(credits_count), **options)

    def give_back(self, payment: Payment, back: Back, **options: Any) -> Payment:
        return self.payments.refund(
            self.name,
            payment.terms.payment_id,
            back,
            refund_id=f"{self.name}-refund-{next(self._numbers)}",
            request=self.request(),
            **options,
        ).payment

    @property
    def balance(self) -> int:
        return self.ledger.organisation(self.name).balance

    @property
    def plan(self) -> Plan:
        return self.ledger.organisation(self.name).plan

    def change_plan(self, plan: Plan, expires_at: datetime | None = None) -> None:
        self.ledger.change_plan(self.name, plan, expires_at=expires_at, request=self.request())


@pytest.fixture
def shop(service_database: str) -> Iterator[Shop]:
    with closing(open_ledger(service_database)) as ledger:
        yield Shop(ledger)


def flags(payment: Payment) -> set[Flag]:
    return {flag for flag, _, _ in payment.flags}


class TestQuotes:
    def test_credits_cost_the_price_and_the_tax(self, shop: Shop) -> None:
        quoted = shop.quote(1_000)
        terms = quoted.terms
        assert [line.item for line in quoted.lines] == ["credits"]
        assert (terms.credits, terms.amount_minor, terms.tax_minor) == (1_000, 150_000, 27_000)
        assert terms.price_version == "published-1"

    def test_the_organisations_own_price_wins(self, shop: Shop) -> None:
        shop.ledger.change_price(ORG, 1_000_000, request=shop.request())
        assert shop.quote(1_000).terms.amount_minor == 100_000
        shop.ledger.change_price(ORG, 0, request=shop.request())
        assert shop.quote(1_000).terms.amount_minor == 150_000

    @pytest.mark.parametrize(("credits_count", "items"), [(0, ["pro"]), (1_000, ["pro", "credits"])])
    def test_pro_with_or_without_credits(self, shop: Shop, credits_count: int, items: list[str]) -> None:
        quoted = shop.quote(credits_count, PRO)
        assert [line.item for line in quoted.lines] == items
        assert quoted.terms.fee_minor == 1_000_000
        assert quoted.terms.total_minor == (1_000_000 + 150 * credits_count) * 118 // 100

    @pytest.mark.parametrize(("credits_count", "plan"), [(999, PAYG), (0, PAYG), (1, PRO)])
    def test_fewer_than_the_minimum_are_not_sold(
        self, shop: Shop, credits_count: int, plan: PurchasePlan
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            shop.quote(credits_count, plan)
        assert refusal.value.field == "credits"

    @pytest.mark.parametrize("plan", [PAYG, PRO])
    def test_more_than_one_payment_can_be_of_is_not_quoted(self, shop: Shop, plan: PurchasePlan) -> None:
        """At 1.50 with 18 % of tax, a payment of 10,000,000,000.00 buys some 5,649 million credits."""
        with pytest.raises(InvalidInput, match="at most INR 10,000,000,000") as refusal:
            shop.quote(5_650_000_000, plan)
        assert refusal.value.field == "credits"
        assert shop.begin(shop.quote(5_649_000_000 - 10_000, plan)).checkout is not None
        shop.ledger.change_price(ORG, 1, request=shop.request())
        with pytest.raises(InvalidInput):
            shop.quote(10**12 + 1, plan)

    def test_pro_is_not_sold_twice_and_nothing_beside_an_agreement(self, shop: Shop) -> None:
        shop.change_plan(Plan.PRO, NOW + timedelta(days=1))
        with pytest.raises(ProAlready):
            shop.quote(0, PRO)
        shop.now += timedelta(days=1)
        shop.quote(0, PRO)
        shop.change_plan(Plan.ENTERPRISE)
        for quote in (shop.quote, shop.quote_custom):
            with pytest.raises(BillingIsCustom):
                quote()

    def test_an_amount_costs_itself_and_the_tax(self, shop: Shop) -> None:
        quoted = shop.quote_custom()
        assert [(line.item, line.credits, line.amount_minor) for line in quoted.lines] == [
            ("custom", 0, 500_000)
        ]
        assert (quoted.terms.credits, quoted.terms.total_minor, quoted.remark) == (0, 590_000, "a banner")
        assert shop.payments.quoted(ORG, quoted.quote_id) == quoted
        assert shop.quote_custom(85).terms.total_minor == 100

    @pytest.mark.parametrize("amount_minor", [0, -1, 84, 847_457_627_120, 10**12])
    def test_an_amount_that_cannot_be_paid_is_not_quoted(self, shop: Shop, amount_minor: int) -> None:
        """With 18 % of tax, a payment of 10,000,000,000.00 is of 8,474,576,271.19; one of 1.00 is of 0.85."""
        with pytest.raises(InvalidInput) as refusal:
            shop.quote_custom(amount_minor)
        assert refusal.value.field == "amount_minor"
        assert shop.begin(shop.quote_custom(847_457_627_119)).checkout is not None

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
        self, shop: Shop, plan: PurchasePlan, options: dict[str, Any], fields: list[str]
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            shop.payments.quote(ORG, plan, 1_000, **options, quote_id="q", request=shop.request())
        assert [field for field, _ in refusal.value.faults] == fields

    def test_a_payment_is_of_what_was_quoted_whatever_changed(self, shop: Shop) -> None:
        quoted = shop.quote()
        shop.ledger.change_price(ORG, 9_000_000, request=shop.request())
        assert shop.begin(quoted).payment.terms.total_minor == 177_000

    def test_a_quote_expires(self, shop: Shop) -> None:
        quoted = shop.quote()
        shop.now = quoted.expires_at
        with pytest.raises(QuoteExpired):
            shop.begin(quoted)

    def test_a_quote_of_nobody_is_unknown(self, shop: Shop) -> None:
        with pytest.raises(QuoteUnknown):
            shop.payments.begin(ORG, "quote-x", "bookpay", payment_id="p", request=shop.request())


class TestBeginning:
    def test_an_order_is_open_and_the_way_to_it_known(self, shop: Shop) -> None:
        begun = shop.begin()
        assert begun.payment.status is PaymentStatus.PENDING
        assert begun.checkout is not None
        order = shop.gateway.orders[str(begun.payment.order_id)]
        assert (order.amount_minor, order.currency, order.description) == (177_000, "INR", "1,000 credits")

    def test_a_quote_has_one_payment(self, shop: Shop) -> None:
        quoted = shop.quote()
        with ThreadPoolExecutor(4) as pool:
            begun = list(pool.map(lambda number: shop.begin(quoted, payment_id=f"p-{number}"), range(4)))
        assert len({each.payment.terms.payment_id for each in begun}) == 1
        assert len(shop.gateway.orders) == 1
        assert all(each.checkout for each in begun)
        assert sorted(each.repeated for each in begun) == [False, True, True, True]

    def test_a_repeated_request_gets_its_payment_and_another_one_none(self, shop: Shop) -> None:
        quoted = shop.quote()
        first = shop.begin(quoted, once=Once("payments", "key", b"1"))
        again = shop.begin(quoted, once=Once("payments", "key", b"1"))
        assert again.payment.terms.payment_id == first.payment.terms.payment_id
        assert (first.repeated, again.repeated) == (False, True)
        with pytest.raises(IdempotencyConflict):
            shop.begin(quoted, once=Once("payments", "key", b"2"))

    def test_a_gateway_that_is_down_is_asked_again(self, shop: Shop) -> None:
        quoted = shop.quote()
        shop.gateway.is_down = True
        with pytest.raises(GatewayUnavailable):
            shop.begin(quoted, payment_id="payment-x")
        assert shop.payments.payment("payment-x").status is PaymentStatus.CREATED
        shop.gateway.is_down = False
        assert shop.begin(quoted).payment.terms.payment_id == "payment-x"

    def test_an_order_that_is_refused_fails_the_payment(self, shop: Shop) -> None:
        shop.gateway.refuses_orders = True
        begun = shop.begin()
        assert (begun.payment.status, begun.checkout) == (PaymentStatus.FAILED, None)

    def test_a_gateway_that_is_not_there(self, shop: Shop) -> None:
        with pytest.raises(GatewayUnknown):
            shop.begin(gateway="cash")
        shop.gateway.currencies = frozenset({"USD"})
        with pytest.raises(GatewayUnknown):
            shop.begin()

    def test_the_way_to_the_page_can_be_asked_for_again(self, shop: Shop) -> None:
        payment = shop.order()
        ask = lambda: shop.payments.checkout(ORG, payment.terms.payment_id, request=shop.request())  # noqa: E731
        assert ask().checkout is not None
        shop.pay(payment)
        assert ask().checkout is None

    def test_payments_of_others_are_unknown(self, shop: Shop) -> None:
        payment_id = shop.order().terms.payment_id
        shop.ledger.open_organisation("org-2", request=shop.request())
        with pytest.raises(PaymentUnknown):
            shop.payments.abandon("org-2", payment_id, request=shop.request())
        with pytest.raises(PaymentUnknown):
            shop.payments.payment("payment-x")


class TestCompleting:
    def test_credits_and_plan_come_with_the_money(self, shop: Shop) -> None:
        payment = shop.buy()
        assert payment.status is PaymentStatus.COMPLETED
        assert (shop.balance, shop.plan) == (1_000, Plan.PAY_AS_YOU_GO)
        assert payment.purchase is not None
        stream = shop.ledger.organisation(ORG).id
        bought = list(shop.ledger.events.get(stream))[payment.purchase - 1].fact
        assert isinstance(bought, CreditsPurchased)
        assert (bought.payment_id, bought.order_id) == (payment.gateway_payment_id, payment.order_id)
        assert (bought.amount_minor, bought.tax_minor) == (150_000, 27_000)

    def test_return_webhook_and_recheck_race_for_one_completion(self, shop: Shop) -> None:
        payment = shop.order()
        attempt = shop.gateway.pay(str(payment.order_id))
        news = [lambda: shop.learn(attempt)] * 4 + [lambda: shop.recheck(payment)] * 4
        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(one) for one in news]:
                assert each.result().status is PaymentStatus.COMPLETED
        assert shop.balance == 1_000

    def test_pro_lasts_a_year_and_brings_its_credits(self, shop: Shop) -> None:
        shop.buy(1_000, PRO)
        organisation = shop.ledger.organisation(ORG)
        assert (organisation.plan, organisation.balance) == (Plan.PRO, 1_000)
        assert organisation.plan_expires_at == NOW + timedelta(days=365)
        shop.now += timedelta(days=365)
        shop.ledger.end_pro(ORG, request=shop.request())
        assert shop.plan is Plan.PAY_AS_YOU_GO

    def test_pro_that_came_meanwhile_is_flagged_and_the_credits_are_there(self, shop: Shop) -> None:
        payment = shop.order(1_000, PRO)
        shop.change_plan(Plan.PRO, NOW + timedelta(days=9))
        payment = shop.pay(payment)
        assert payment.status is PaymentStatus.COMPLETED
        assert flags(payment) == {Flag.ALREADY_PRO}
        assert shop.ledger.organisation(ORG).plan_expires_at == NOW + timedelta(days=9)
        assert shop.balance == 1_000

    def test_credits_that_were_recorded_by_hand_are_not_added_again(self, shop: Shop) -> None:
        payment = shop.order()
        attempt = shop.gateway.pay(str(payment.order_id))
        shop.ledger.record_purchase(
            ORG,
            1_000,
            payment_id=attempt.gateway_payment_id,
            order_id="?",
            gateway="bookpay",
            request=shop.request(),
        )
        payment = shop.learn(attempt)
        assert (payment.status, payment.purchase) == (PaymentStatus.COMPLETED, None)
        assert flags(payment) == {Flag.CREDITS_RECORDED_BEFORE}
        assert shop.balance == 1_000

    def test_a_custom_payment_is_recorded_and_adds_nothing(self, shop: Shop) -> None:
        begun = shop.payments.begin_custom(
            ORG, 500_000, "a banner", "bookpay", payment_id="payment-c", request=shop.request()
        )
        payment = shop.pay(begun.payment)
        assert (payment.status, payment.terms.total_minor) == (PaymentStatus.COMPLETED, 590_000)
        assert shop.balance == 0
        assert PostgresDesk(shop.ledger).remarks(ORG, ["payment-c"]) == {"payment-c": "a banner"}

    def test_a_quoted_amount_is_recorded_with_its_remark_and_adds_nothing(self, shop: Shop) -> None:
        quoted = shop.quote_custom()
        payments = [shop.pay(shop.begin(quoted).payment), shop.begin(quoted).payment]
        first, again = (payment.terms.payment_id for payment in payments)
        assert first == again, "a quote has one payment"
        assert (payments[1].status, payments[1].purchase) == (PaymentStatus.COMPLETED, None)
        assert shop.balance == 0
        assert shop.payments.remarks(ORG, [first]) == {first: "a banner"}
        facts = [event.fact for event in shop.ledger.events.get(payments[1].id)]
        assert "banner" not in repr(facts), "it is kept beside the log"

    def test_the_remark_is_there_whoever_goes_on_with_the_payment(self, shop: Shop) -> None:
        quoted = shop.quote_custom()
        shop.gateway.is_down = True
        with pytest.raises(GatewayUnavailable):
            shop.begin(quoted, payment_id="payment-c")
        shop.gateway.is_down = False
        assert shop.attend(shop.payments.payment("payment-c")).status is PaymentStatus.PENDING
        assert shop.payments.remarks(ORG, ["payment-c"]) == {"payment-c": "a banner"}

    def test_a_payment_goes_on_without_what_was_erased(self, shop: Shop) -> None:
        quoted = shop.quote_custom()
        shop.gateway.is_down = True
        with pytest.raises(GatewayUnavailable):
            shop.begin(quoted, payment_id="payment-c")
        shop.gateway.is_down = False
        with PostgresDesk(shop.ledger)._datastore.get_connection() as connection:
            connection.execute("DELETE FROM ledger.purchase_quotes")
            connection.execute("DELETE FROM ledger.payment_remarks")
        assert shop.attend(shop.payments.payment("payment-c")).status is PaymentStatus.PENDING
        assert shop.payments.remarks(ORG, ["payment-c"]) == {}

    def test_an_order_of_nobody(self, shop: Shop) -> None:
        with pytest.raises(PaymentUnknown):
            shop.learn(Attempt("pay_1", "order_x", AttemptStatus.CAPTURED, 1, "INR"))


class TestNews:
    def test_a_webhook_counts_if_it_is_signed(self, shop: Shop) -> None:
        payment = shop.order()
        body = shop.gateway.notice_of(shop.gateway.pay(str(payment.order_id)))
        with pytest.raises(NoticeRefused):
            shop.payments.hear("bookpay", body, {"x-signature": "mine"}, shop.request())
        assert shop.balance == 0
        for _ in range(2):
            shop.payments.hear("bookpay", body, {"x-signature": SIGNATURE}, shop.request())
        assert shop.balance == 1_000

    def test_a_webhook_about_something_else_is_taken(self, shop: Shop) -> None:
        body = b'{"notice_id": "n", "kind": "settlement", "attempt": null}'
        shop.payments.hear("bookpay", body, {"x-signature": SIGNATURE}, shop.request())

    @pytest.mark.parametrize("signature", [SIGNATURE, "forged"])
    def test_who_comes_back_without_a_signature_has_the_gateway_asked(
        self, shop: Shop, signature: str
    ) -> None:
        payment = shop.order()
        body = shop.gateway.notice_of(shop.gateway.pay(str(payment.order_id)))
        fields = {"notice": body.decode(), "by": signature}
        shop.payments.come_back(payment.terms.payment_id, fields, shop.request())
        assert shop.balance == 1_000

    def test_a_forged_return_brings_nothing(self, shop: Shop) -> None:
        payment = shop.order()
        forged = Attempt("pay_x", str(payment.order_id), AttemptStatus.CAPTURED, 177_000, "INR")
        fields = {"notice": shop.gateway.notice_of(forged).decode(), "by": "forged"}
        back = shop.payments.come_back(payment.terms.payment_id, fields, shop.request())
        assert back.payment.status is PaymentStatus.PENDING

    def test_a_return_of_another_order_says_nothing_of_this_one(self, shop: Shop) -> None:
        paid, payment = shop.order(), shop.order()
        body = shop.gateway.notice_of(shop.gateway.pay(str(paid.order_id)))
        fields = {"notice": body.decode(), "by": SIGNATURE}
        back = shop.payments.come_back(payment.terms.payment_id, fields, shop.request())
        assert back.payment.status is PaymentStatus.PENDING

    def test_the_latest_attempt_says_where_an_order_stands_unless_one_took_money(self, shop: Shop) -> None:
        payment = shop.order()
        order_id = str(payment.order_id)
        shop.gateway.pay(order_id, AttemptStatus.FAILED)
        shop.gateway.pay(order_id, AttemptStatus.PENDING)
        assert shop.recheck(payment).status is PaymentStatus.PENDING
        shop.gateway.pay(order_id)
        shop.gateway.pay(order_id)
        shop.gateway.pay(order_id, AttemptStatus.FAILED)
        payment = shop.recheck(payment)
        assert payment.status is PaymentStatus.COMPLETED
        assert flags(payment) == {Flag.PAID_TWICE}

    def test_a_gateway_that_forgot_the_order_changes_nothing(self, shop: Shop) -> None:
        payment = shop.order()
        shop.gateway.attempts_of.clear()
        assert shop.recheck(payment).status is PaymentStatus.PENDING

    def test_another_amount_fails_and_is_flagged(self, shop: Shop) -> None:
        payment = shop.pay(shop.order(), amount_minor=1)
        assert (payment.status, flags(payment)) == (PaymentStatus.FAILED, {Flag.AMOUNT_DIFFERS})
        assert shop.balance == 0


class TestEnding:
    def test_a_payer_gives_up_and_pays_after_all(self, shop: Shop) -> None:
        payment = shop.order()
        gave_up = shop.payments.abandon(ORG, payment.terms.payment_id, request=shop.request())
        assert gave_up.payment.status is PaymentStatus.ABANDONED
        assert shop.pay(payment).status is PaymentStatus.COMPLETED
        with pytest.raises(PaymentClosed):
            shop.payments.abandon(ORG, payment.terms.payment_id, request=shop.request())

    def test_what_nobody_pays_for_a_day_is_abandoned_and_still_completes(self, shop: Shop) -> None:
        payment = shop.order()
        shop.now += timedelta(hours=23)
        assert shop.attend(payment).status is PaymentStatus.PENDING
        shop.now += timedelta(hours=1)
        assert shop.attend(payment).status is PaymentStatus.ABANDONED
        events = list(shop.ledger.events.get(payment.id))
        assert events[-1].fact.reason == NEVER_PAID  # type: ignore[attr-defined]
        shop.gateway.pay(str(payment.order_id))
        assert shop.attend(payment).status is PaymentStatus.COMPLETED
        assert shop.attend(payment).status is PaymentStatus.COMPLETED

    def test_what_a_crash_left_without_an_order_gets_one(self, shop: Shop) -> None:
        shop.gateway.is_down = True
        with pytest.raises(GatewayUnavailable):
            shop.begin(payment_id="payment-x")
        shop.gateway.is_down = False
        assert shop.attend(shop.payments.payment("payment-x")).status is PaymentStatus.PENDING


def end_turns(shop: Shop) -> None:
    """Let the database lose the connections that hold turns, as a failover does."""
    with (
        cast(LedgerEventStore, shop.ledger.events).recorder.datastore.get_connection() as connection,
        connection.transaction(),
    ):
        connection.execute("SET LOCAL ROLE NONE")
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_database ON oid = database"
            " WHERE locktype = 'advisory' AND datname = current_database() AND pid <> pg_backend_pid()"
        )


class TestRefunds:
    def test_unspent_credits_go_and_their_money_comes(self, shop: Shop) -> None:
        payment = shop.refund(shop.buy(), 400)
        assert payment.status is PaymentStatus.REFUNDED
        assert shop.balance == 600
        ((request, _),) = shop.gateway.refunds.values()
        assert request.amount_minor == 70_800
        shop.refund(payment)
        assert (shop.balance, shop.gateway.taken_minor) == (0, 0)
        with pytest.raises(RefundExceedsPurchase):
            shop.refund(payment)

    def test_the_same_request_at_once_gets_the_same_answer(self, shop: Shop) -> None:
        payment_id = shop.buy().terms.payment_id
        once = Once("refunds", "key", b"1")

        def refund(number: int) -> PaymentStanding:
            return shop.payments.refund(
                ORG,
                payment_id,
                CreditsBack(600),
                refund_id=f"refund-{number}",
                request=shop.request(),
                once=once,
            )

        with ThreadPoolExecutor(8) as pool:
            refunds = list(pool.map(refund, range(8)))
        assert len({each.refund_id for each in refunds}) == 1
        assert shop.balance == 400
        assert len(shop.gateway.refunds) == 1

    def test_a_gateway_that_is_down_is_asked_until_it_answers(self, shop: Shop) -> None:
        payment = shop.buy()
        shop.gateway.is_down = True
        assert shop.refund(payment).status is PaymentStatus.COMPLETED
        assert shop.balance == 0
        shop.gateway.is_down = False
        assert shop.attend(payment).status is PaymentStatus.REFUNDED
        assert shop.gateway.taken_minor == 0

    def test_one_that_takes_its_time(self, shop: Shop) -> None:
        payment = shop.buy()
        shop.gateway.refunds_pend = True
        assert shop.refund(payment).status is PaymentStatus.COMPLETED
        shop.gateway.refunds_pend = False
        assert shop.attend(payment).status is PaymentStatus.REFUNDED

    def test_a_refusal_brings_the_credits_back(self, shop: Shop) -> None:
        payment = shop.buy()
        shop.gateway.refuses_refunds = True
        payment = shop.refund(payment, 400)
        assert payment.status is PaymentStatus.COMPLETED
        assert flags(payment) == {Flag.REFUND_REFUSED}
        assert shop.balance == 1_000
        shop.gateway.refuses_refunds = False
        assert shop.refund(payment).status is PaymentStatus.REFUNDED

    def test_one_that_fails_at_the_gateway_is_a_refusal_too(self, shop: Shop) -> None:
        payment = shop.buy()
        shop.gateway.refunds_fail = True
        assert flags(shop.refund(payment, 400)) == {Flag.REFUND_REFUSED}
        assert shop.balance == 1_000

    def test_two_who_hear_of_a_refusal_bring_the_credits_back_once(self, shop: Shop) -> None:
        payment = shop.buy()
        shop.gateway.refuses_refunds = True

        def somebody_else_asks(step: str) -> None:
            if step == "before refund":
                shop.gateway._step = lambda _: None
                end_turns(shop)
                shop.attend(payment)

        shop.gateway._step = somebody_else_asks
        shop.refund(payment, 400)
        assert shop.balance == 1_000

    def test_credits_that_came_with_a_plan_go_without_money(self, shop: Shop) -> None:
        in_rupees = CurrencyChange(pro_credits=500)
        edition = Edition("with credits", NOW, currencies={Currency.INR: in_rupees})
        shop.ledger.prices = PriceBook([edition])
        quoted = shop.quote(0, PRO)
        assert [(line.item, line.credits) for line in quoted.lines] == [("pro", 500)]
        payment = shop.refund(shop.pay(shop.begin(quoted).payment))
        assert (payment.status, shop.balance) == (PaymentStatus.REFUNDED, 0)
        assert shop.gateway.refunds == {}

    def test_a_repeated_request_refunds_once(self, shop: Shop) -> None:
        payment = shop.buy()
        for _ in range(2):
            shop.refund(payment, 400, once=Once("refunds", "key", b"1"))
        assert shop.balance == 600
        assert len(shop.gateway.refunds) == 1

    def test_what_is_not_paid_or_bought_nothing_is_not_refunded(self, shop: Shop) -> None:
        with pytest.raises(PaymentNotRefundable):
            shop.refund(shop.order())

    def test_a_plan_keeps_its_fee(self, shop: Shop) -> None:
        shop.refund(shop.buy(1_000, PRO))
        assert shop.gateway.taken_minor == 1_180_000
