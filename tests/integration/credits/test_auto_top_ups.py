"""Auto top-up on a real database: a purchase switches it on, and it starts once when credits are low."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from domain.credits.auto_top_up import TopUpTerms
from domain.credits.auto_top_up_events import (
    AutoTopUpBegun,
    AutoTopUpHeld,
    AutoTopUpSwitchedOff,
    HeldReason,
    OffReason,
)
from domain.credits.errors import AutoTopUpAlreadyOn, AutoTopUpNotOn
from domain.invoicing.ports import StoredBillingDetails
from domain.payments.errors import BilledByAgreement, BillingDetailsMissing, GatewayNotFound
from domain.payments.events import PaymentStatus
from domain.payments.gateway import AttemptStatus
from domain.payments.payment import Payment
from domain.pricing.plans import Plan
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS
from domain.shared.errors import InvalidInput
from infra.event_store.recorder import event_store_of
from infra.invoicing.document_store import PostgresBillingDocumentStore
from infra.payments.auto_top_up_worker import AutoTopUpWorker
from infra.payments.payment_worker import PaymentWorker
from infra.service.composition import credits_of, open_ledger
from projections.credits.auto_top_up_queries import AutoTopUpStatus, auto_top_up
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.integration.payments.test_payments import ORG, PAYG, PRO, PaymentEnvironment
from tests.sales import billed_to
from tests.usage_reports import usage_report

TERMS = TopUpTerms(credits=1_000, threshold=200, per_day=2)
COST = 177_000


class AutoTopUpEnvironment:
    """An organisation that tops up below 200 credits, at most twice a day, and the worker for it."""

    def __init__(
        self, payment_env: PaymentEnvironment, conninfo: str, connection: psycopg.Connection
    ) -> None:
        self.payment_env = payment_env
        self._conninfo = conninfo
        self._connection = connection
        self._numbers = count(1)
        self.worker = self.another_worker()
        self._payments = PaymentWorker(
            payment_env.tracking, credits_of(payment_env.ledger).commands, conninfo, lambda: payment_env.now
        )

    def put_details(self) -> None:
        """Store billing details, which a stored card needs."""
        datastore = event_store_of(self.payment_env.ledger).recorder.datastore
        on_file = StoredBillingDetails(billed_to(), self.payment_env.now, "u-1")
        PostgresBillingDocumentStore(datastore).put_billing_details(self.payment_env.name, on_file, b"salt")

    def another_worker(self) -> AutoTopUpWorker:
        return AutoTopUpWorker(
            self.payment_env.top_ups,
            self.payment_env.tracking,
            self._conninfo,
            lambda: self.payment_env.now,
            lambda: str(next(self._numbers)),
        )

    def order(self, terms: TopUpTerms = TERMS, **options: Any) -> Payment:
        """Start the purchase that switches it on."""
        quoted = self.payment_env.payments.quote(
            ORG,
            PAYG,
            terms.credits,
            quote_id=f"quote-{next(self._numbers)}",
            context=self.payment_env.request(),
            top_up=terms,
        )
        return self.payment_env.begin(quoted, **options).payment

    def switch_on(self, terms: TopUpTerms = TERMS) -> Payment:
        return self.payment_env.pay(self.order(terms))

    def spend(self, photos: int) -> None:
        """Charge photos, as the pipeline's messages do."""
        organisation = self.payment_env.ledger.organisation(ORG)
        report = usage_report(
            message_id=f"message-{next(self._numbers)}",
            organisation_id=ORG,
            occurred_at=self.payment_env.now,
            photos=photos,
        )
        organisation.charge(report, WHOLE_CREDIT_MILLIONTHS, self.payment_env.now)
        self.payment_env.ledger.runner.store.append(
            organisation.collect_events(), idempotency_key=None, response=b""
        )

    def catch_up(self) -> None:
        ProjectionRunner(self._conninfo, ALL_PROJECTIONS).catch_up()

    def after(self, **time: float) -> int:
        """Advance the clock, run the worker, and return how many top-ups started."""
        self.payment_env.now += timedelta(**time)
        self.catch_up()
        begun = self.worker.begin_due(self._connection)
        self.catch_up()
        self._payments.follow_up_due(self._connection)
        self.catch_up()
        return begun

    def events(self, kind: type) -> list[Any]:
        events = self.payment_env.ledger.events.get(self.payment_env.ledger.organisation(ORG).id)
        return [envelope.event for envelope in events if isinstance(envelope.event, kind)]

    @property
    def last(self) -> Payment:
        """The payment of the last top-up."""
        return self.payment_env.payments.payment(self.events(AutoTopUpBegun)[-1].payment_id)

    @property
    def status(self) -> AutoTopUpStatus:
        self.catch_up()
        return auto_top_up(self._connection, ORG)

    def change(self, terms: TopUpTerms) -> None:
        self.payment_env.top_ups.change(ORG, terms, context=self.payment_env.request())

    def switch_off(self) -> None:
        self.payment_env.top_ups.switch_off(ORG, context=self.payment_env.request())


@pytest.fixture
def top_up_env(service_database: str) -> Iterator[AutoTopUpEnvironment]:
    with (
        closing(open_ledger(service_database)) as ledger,
        psycopg.connect(service_database, autocommit=True) as connection,
    ):
        top_up_env = AutoTopUpEnvironment(PaymentEnvironment(ledger), service_database, connection)
        top_up_env.put_details()
        yield top_up_env


class TestSwitchingOn:
    def test_it_is_off_until_it_is_switched_on(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.payment_env.buy()
        top_up_env.spend(990)
        assert top_up_env.after(seconds=5) == 0
        assert not top_up_env.status.is_on

    def test_a_purchase_switches_it_on_when_it_is_paid(self, top_up_env: AutoTopUpEnvironment) -> None:
        payment = top_up_env.order()
        assert not top_up_env.status.is_on
        top_up_env.payment_env.pay(payment)
        status = top_up_env.status
        assert (status.is_on, status.credits, status.threshold, status.per_day) == (
            True,
            1_000,
            200,
            2,
        )
        assert (status.card_of, status.most_minor) == (payment.terms.payment_id, COST)

    def test_an_unpaid_purchase_does_not_switch_it_on(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.payment_env.pay(top_up_env.order(), status=AttemptStatus.FAILED)
        assert not top_up_env.status.is_on

    def test_it_needs_a_gateway_that_stores_cards(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.payment_env.gateway.supports_recurring_charges = False
        with pytest.raises(GatewayNotFound):
            top_up_env.order()

    def test_a_stored_card_needs_billing_details(self, top_up_env: AutoTopUpEnvironment) -> None:
        card = top_up_env.switch_on()
        order = top_up_env.payment_env.gateway.orders[str(card.order_id)]
        assert (order.payer.email, order.mandate_minor) == ("pay@buyer.example", COST)

    def test_no_card_is_stored_without_billing_details(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env._connection.execute("DELETE FROM ledger.billing_details")
        with pytest.raises(BillingDetailsMissing):
            top_up_env.order()

    def test_a_second_card_is_refused_while_it_is_on(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        with pytest.raises(AutoTopUpAlreadyOn):
            top_up_env.order()

    def test_of_two_purchases_the_last_paid_counts_and_the_other_card_is_deleted(
        self, top_up_env: AutoTopUpEnvironment
    ) -> None:
        first, second = top_up_env.order(), top_up_env.order()
        card = top_up_env.payment_env.pay(first)
        top_up_env.payment_env.pay(second)
        assert top_up_env.status.card_of == second.terms.payment_id
        assert top_up_env.payment_env.gateway.forgotten == [card.gateway_payment_id]

    def test_a_late_failure_of_a_purchase_does_not_affect_another(
        self, top_up_env: AutoTopUpEnvironment
    ) -> None:
        first, second = top_up_env.order(), top_up_env.order()
        top_up_env.payment_env.pay(first)
        top_up_env.payment_env.pay(second, status=AttemptStatus.FAILED)
        assert top_up_env.status.card_of == first.terms.payment_id
        assert top_up_env.payment_env.gateway.forgotten == []

    def test_only_a_purchase_of_credits_switches_it_on(self, top_up_env: AutoTopUpEnvironment) -> None:
        with pytest.raises(InvalidInput):
            top_up_env.payment_env.payments.quote(
                ORG, PRO, 1_000, quote_id="q", context=top_up_env.payment_env.request(), top_up=TERMS
            )


class TestToppingUp:
    def test_low_credits_start_one_charge_of_the_card(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(801)
        assert top_up_env.after(seconds=2) == 1
        assert top_up_env.payment_env.balance == 1_199
        assert top_up_env.after(seconds=2) == 0
        terms = top_up_env.last.terms
        assert (terms.total_minor, terms.actor, terms.quote_id) == (COST, None, None)
        assert top_up_env.last.status is PaymentStatus.COMPLETED
        assert top_up_env.payment_env.gateway.taken_minor == 2 * COST

    def test_enough_credits_start_no_top_up(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(800)
        assert top_up_env.after(seconds=2) == 0

    def test_an_outdated_balance_starts_no_top_up(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        top_up_env.catch_up()
        top_up_env.payment_env.buy()
        assert top_up_env.worker.begin_due(top_up_env._connection) == 0
        assert top_up_env.events(AutoTopUpBegun) == []

    def test_a_paid_top_up_is_not_charged_again(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        orders = top_up_env.payment_env.payments._orders
        assert orders.charge(top_up_env.last.terms.payment_id, top_up_env.payment_env.request()) == ()
        assert top_up_env.payment_env.gateway.taken_minor == 2 * COST

    def test_it_uses_the_current_price(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        credits_of(top_up_env.payment_env.ledger).commands.change_price(
            ORG, 1_000_000, context=top_up_env.payment_env.request()
        )
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        assert top_up_env.last.terms.total_minor == 118_000

    def test_two_workers_with_the_same_balance_start_one(
        self, top_up_env: AutoTopUpEnvironment, service_database: str
    ) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        top_up_env.catch_up()

        def begin(worker: AutoTopUpWorker) -> int:
            with psycopg.connect(service_database, autocommit=True) as connection:
                return worker.begin_due(connection)

        with ThreadPoolExecutor(4) as pool:
            begun = list(pool.map(begin, [top_up_env.another_worker() for _ in range(4)]))
        assert sum(begun) == 1
        assert len(top_up_env.events(AutoTopUpBegun)) == 1
        assert top_up_env.payment_env.gateway.taken_minor == 2 * COST

    def test_a_busy_organisation_is_topped_up(
        self, top_up_env: AutoTopUpEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        top_up_env.catch_up()
        store = event_store_of(top_up_env.payment_env.ledger).group_commit._store
        begin = store.begin

        def begin_late() -> Any:
            monkeypatch.setattr(store, "begin", begin)
            top_up_env.spend(1)  # another writer was first
            return begin()

        monkeypatch.setattr(store, "begin", begin_late)
        assert top_up_env.after(seconds=2) == 1
        assert len(top_up_env.events(AutoTopUpBegun)) == 1

    def test_a_pending_payment_blocks_another_one(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.gateway.card_answers = AttemptStatus.PENDING
        top_up_env.spend(900)
        assert top_up_env.after(seconds=2) == 1
        assert [top_up_env.after(hours=20), top_up_env.after(hours=20)] == [0, 0]
        assert top_up_env.last.status is PaymentStatus.PENDING  # the bank may take 36 hours

    def test_a_payment_without_an_answer_is_abandoned(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.gateway.card_answers = AttemptStatus.PENDING
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        top_up_env.after(days=2)
        assert top_up_env.payment_env.payments.payment(
            top_up_env.events(AutoTopUpBegun)[0].payment_id
        ).status is (PaymentStatus.ABANDONED)


class TestFailures:
    def test_a_gateway_that_is_down_charges_later_and_once(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        top_up_env.payment_env.gateway.is_down = True
        assert top_up_env.after(seconds=2) == 1
        assert top_up_env.after(seconds=30) == 0
        top_up_env.payment_env.gateway.is_down = False
        top_up_env.after(minutes=1)
        assert top_up_env.payment_env.balance == 1_100
        assert top_up_env.payment_env.gateway.taken_minor == 2 * COST

    def test_a_charge_with_a_lost_response_is_not_sent_again(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        gateway = top_up_env.payment_env.gateway

        def lose(name: str) -> None:
            if name == "after charge":
                gateway._step = lambda _: None
                gateway.is_down = True
                gateway._begin("the answer")

        gateway._step = lose
        top_up_env.after(seconds=2)
        gateway.is_down = False
        top_up_env.after(minutes=1)
        assert top_up_env.payment_env.balance == 1_100
        assert gateway.taken_minor == 2 * COST

    def test_a_refused_card_is_tried_on_three_days(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on(TopUpTerms(1_000, 200, 5))
        top_up_env.payment_env.gateway.card_answers = AttemptStatus.FAILED
        top_up_env.spend(900)
        assert [top_up_env.after(hours=12) for _ in range(8)] == [1, 0, 1, 0, 1, 0, 0, 0]
        assert [event.reason for event in top_up_env.events(AutoTopUpHeld)] == [HeldReason.PAYMENT_FAILED] * 2
        (off,) = top_up_env.events(AutoTopUpSwitchedOff)
        assert off.reason is OffReason.PAYMENTS_FAILED
        assert top_up_env.payment_env.gateway.forgotten != []

    def test_a_card_that_is_gone_fails_the_payment(self, top_up_env: AutoTopUpEnvironment) -> None:
        card = top_up_env.switch_on()
        top_up_env.payment_env.gateway.forget_card(str(card.gateway_payment_id))
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        assert top_up_env.last.status is PaymentStatus.FAILED
        assert top_up_env.last.order_id is not None

    def test_an_order_that_is_refused_fails_the_payment(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.gateway.refuses_orders = True
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        assert top_up_env.last.status is PaymentStatus.FAILED
        assert top_up_env.last.order_id is None

    def test_a_price_that_rose_is_not_charged(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        credits_of(top_up_env.payment_env.ledger).commands.change_price(
            ORG, 1_600_000, context=top_up_env.payment_env.request()
        )
        top_up_env.spend(900)
        assert top_up_env.after(seconds=2) == 0
        assert top_up_env.status.off_reason is OffReason.PRICE_ROSE

    def test_an_organisation_billed_by_agreement_buys_nothing(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.change_plan(Plan.ENTERPRISE)
        assert top_up_env.after(seconds=2) == 0
        assert top_up_env.status.is_on
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        assert top_up_env.status.off_reason is OffReason.NOT_FOR_SALE
        with pytest.raises(BilledByAgreement):
            top_up_env.order()

    def test_a_failure_of_one_does_not_stop_the_others(
        self, top_up_env: AutoTopUpEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        monkeypatch.setattr(
            top_up_env.payment_env.top_ups,
            "begin",
            lambda *_, **__: (_ for _ in ()).throw(InvalidInput("x", "y")),
        )
        assert top_up_env.after(seconds=2) == 0
        assert top_up_env.worker.failures == 1


class TestDailyLimit:
    def test_the_daily_limit(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        for _ in range(3):
            top_up_env.spend(1_000)
            top_up_env.after(minutes=1)
        assert [event.number for event in top_up_env.events(AutoTopUpBegun)] == [1, 2]
        assert top_up_env.status.held_reason_at(top_up_env.payment_env.now) is HeldReason.LIMIT_REACHED
        assert top_up_env.status.count_started_on(top_up_env.payment_env.now) == 2
        top_up_env.after(days=1)
        assert top_up_env.status.held_reason_at(top_up_env.payment_env.now) is None
        assert [event.number for event in top_up_env.events(AutoTopUpBegun)] == [1, 2, 1]

    def test_a_top_up_that_was_too_small_is_not_repeated(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on(TopUpTerms(1_000, 200, 10))
        top_up_env.spend(5_000)
        assert [top_up_env.after(minutes=1) for _ in range(3)] == [1, 0, 0]
        assert top_up_env.status.held_reason_at(top_up_env.payment_env.now) is HeldReason.TOO_SMALL

    def test_a_higher_limit_takes_effect_immediately(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on(TopUpTerms(1_000, 200, 1))
        for _ in range(2):
            top_up_env.spend(1_000)
            top_up_env.after(minutes=1)
        top_up_env.change(TopUpTerms(1_000, 200, 2))
        assert top_up_env.after(minutes=1) == 1


class TestChanging:
    def test_more_than_was_agreed_to_is_refused(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        with pytest.raises(InvalidInput) as refused:
            top_up_env.change(TopUpTerms(1_001, 200))
        assert refused.value.field == "credits"

    def test_switching_off_deletes_the_card(self, top_up_env: AutoTopUpEnvironment) -> None:
        card = top_up_env.switch_on()
        top_up_env.switch_off()
        top_up_env.spend(1_000)
        assert top_up_env.after(minutes=1) == 0
        assert top_up_env.payment_env.gateway.forgotten == [card.gateway_payment_id]
        with pytest.raises(AutoTopUpNotOn):
            top_up_env.switch_off()
        with pytest.raises(AutoTopUpNotOn):
            top_up_env.change(TERMS)

    def test_a_gateway_that_is_down_does_not_keep_it_on(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.gateway.is_down = True
        top_up_env.switch_off()
        assert top_up_env.status.off_reason is OffReason.ASKED

    def test_the_card_is_not_deleted_if_it_was_switched_on_again(
        self, top_up_env: AutoTopUpEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        top_up_env.switch_on()
        top_ups = top_up_env.payment_env.top_ups
        forget = top_ups._forget_card_if_off

        def forget_late(organisation_id: str) -> None:
            top_up_env.switch_on()
            forget(organisation_id)

        monkeypatch.setattr(top_ups, "_forget_card_if_off", forget_late)
        top_up_env.switch_off()
        assert top_up_env.payment_env.gateway.forgotten == []
        assert top_up_env.status.is_on
