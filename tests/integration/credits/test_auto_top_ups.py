"""Auto top-up on a real database: switched on with a purchase, begun when credits are low, once each time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from domain.credits.auto_top_up import HeldReason, OffReason, TopUpTerms
from domain.credits.auto_top_up_events import AutoTopUpBegun, AutoTopUpHeld, AutoTopUpSwitchedOff
from domain.credits.errors import AutoTopUpAlreadyOn, AutoTopUpNotOn
from domain.invoicing.ports import StoredBillingDetails
from domain.payments.errors import BilledByAgreement, BillingDetailsMissing, GatewayNotFound
from domain.payments.events import PaymentRequested, PaymentStatus
from domain.payments.gateway import AttemptStatus
from domain.payments.payment import Payment
from domain.pricing.plans import Plan
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS
from domain.shared.command_runner import OPTIMISTIC_ATTEMPTS
from domain.shared.errors import InvalidInput
from infra.event_store.recorder import event_store_of
from infra.invoicing.document_store import PostgresBillingDocumentStore
from infra.payments.auto_top_up_worker import AutoTopUpWorker
from infra.payments.payment_worker import PaymentWorker
from infra.service.composition import open_ledger
from projections.credits.auto_top_up_queries import AutoTopUpStatus, auto_top_up
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.integration.payments.test_payments import ORG, PAYG, PRO, PaymentEnvironment
from tests.sales import billed_to
from tests.usage_reports import usage_report

TERMS = TopUpTerms(credits=1_000, threshold=200, per_day=2)
COST = 177_000


class AutoTopUpEnvironment:
    """A shop whose organisation tops up below 200 credits, twice a day at most; and who sees to it."""

    def __init__(
        self, payment_env: PaymentEnvironment, conninfo: str, connection: psycopg.Connection
    ) -> None:
        self.payment_env = payment_env
        self._conninfo = conninfo
        self._connection = connection
        self._numbers = count(1)
        self.worker = self.another_worker()
        self._payments = PaymentWorker(
            payment_env.tracking, payment_env.ledger, conninfo, lambda: payment_env.now
        )

    def put_details(self) -> None:
        """Put on file who pays: a card is kept for somebody who is known."""
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
        """Begin the purchase that switches it on."""
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
        """Let time pass, have everything seen to, and return how many top-ups began."""
        self.payment_env.now += timedelta(**time)
        self.catch_up()
        begun = self.worker.begin_due(self._connection)
        self.catch_up()
        self._payments.follow_up_due(self._connection)
        self.catch_up()
        return begun

    def facts(self, kind: type) -> list[Any]:
        events = self.payment_env.ledger.events.get(self.payment_env.ledger.organisation(ORG).id)
        return [envelope.event for envelope in events if isinstance(envelope.event, kind)]

    @property
    def last(self) -> Payment:
        """The payment of the last top-up."""
        return self.payment_env.payments.payment(self.facts(AutoTopUpBegun)[-1].payment_id)

    @property
    def standing(self) -> AutoTopUpStatus:
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
    def test_it_is_off_until_somebody_switches_it_on(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.payment_env.buy()
        top_up_env.spend(990)
        assert top_up_env.after(seconds=5) == 0
        assert not top_up_env.standing.is_on

    def test_a_purchase_switches_it_on_when_it_is_paid(self, top_up_env: AutoTopUpEnvironment) -> None:
        payment = top_up_env.order()
        assert not top_up_env.standing.is_on
        top_up_env.payment_env.pay(payment)
        standing = top_up_env.standing
        assert (standing.is_on, standing.credits, standing.threshold, standing.per_day) == (
            True,
            1_000,
            200,
            2,
        )
        assert (standing.card_of, standing.most_minor) == (payment.terms.payment_id, COST)

    def test_a_purchase_that_is_not_paid_switches_nothing_on(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.payment_env.pay(top_up_env.order(), status=AttemptStatus.FAILED)
        assert not top_up_env.standing.is_on

    def test_a_gateway_that_charges_no_card_again_cannot_take_it(
        self, top_up_env: AutoTopUpEnvironment
    ) -> None:
        top_up_env.payment_env.gateway.supports_recurring_charges = False
        with pytest.raises(GatewayNotFound):
            top_up_env.order()

    def test_a_card_is_kept_for_somebody_who_is_known(self, top_up_env: AutoTopUpEnvironment) -> None:
        card = top_up_env.switch_on()
        order = top_up_env.payment_env.gateway.orders[str(card.order_id)]
        assert (order.payer.email, order.mandate_minor) == ("pay@buyer.example", COST)

    def test_nobodys_card_is_kept(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env._connection.execute("DELETE FROM ledger.billing_details")
        with pytest.raises(BillingDetailsMissing):
            top_up_env.order()

    def test_while_it_is_on_no_other_card_is_taken(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        with pytest.raises(AutoTopUpAlreadyOn):
            top_up_env.order()

    def test_of_two_purchases_at_once_the_last_one_paid_counts_and_the_other_card_is_forgotten(
        self, top_up_env: AutoTopUpEnvironment
    ) -> None:
        first, second = top_up_env.order(), top_up_env.order()
        card = top_up_env.payment_env.pay(first)
        top_up_env.payment_env.pay(second)
        assert top_up_env.standing.card_of == second.terms.payment_id
        assert top_up_env.payment_env.gateway.forgotten == [card.gateway_payment_id]

    def test_a_purchase_that_fails_late_takes_nothing_from_the_other(
        self, top_up_env: AutoTopUpEnvironment
    ) -> None:
        first, second = top_up_env.order(), top_up_env.order()
        top_up_env.payment_env.pay(first)
        top_up_env.payment_env.pay(second, status=AttemptStatus.FAILED)
        assert top_up_env.standing.card_of == first.terms.payment_id
        assert top_up_env.payment_env.gateway.forgotten == []

    def test_it_comes_with_credits_alone(self, top_up_env: AutoTopUpEnvironment) -> None:
        with pytest.raises(InvalidInput):
            top_up_env.payment_env.payments.quote(
                ORG, PRO, 1_000, quote_id="q", context=top_up_env.payment_env.request(), top_up=TERMS
            )


class TestToppingUp:
    def test_low_credits_are_bought_once_with_the_card(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(801)
        assert top_up_env.after(seconds=2) == 1
        assert top_up_env.payment_env.balance == 1_199
        assert top_up_env.after(seconds=2) == 0
        terms = top_up_env.last.terms
        assert (terms.total_minor, terms.actor, terms.quote_id) == (COST, None, None)
        assert top_up_env.last.status is PaymentStatus.COMPLETED
        assert top_up_env.payment_env.gateway.taken_minor == 2 * COST

    def test_enough_is_left_alone(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(800)
        assert top_up_env.after(seconds=2) == 0

    def test_who_looks_at_an_old_balance_buys_nothing(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        top_up_env.catch_up()
        top_up_env.payment_env.buy()
        assert top_up_env.worker.begin_due(top_up_env._connection) == 0
        assert top_up_env.facts(AutoTopUpBegun) == []

    def test_what_is_paid_is_not_charged_once_more(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        orders = top_up_env.payment_env.payments._orders
        assert orders.charge(top_up_env.last.terms.payment_id, top_up_env.payment_env.request()) == ()
        assert top_up_env.payment_env.gateway.taken_minor == 2 * COST

    def test_it_pays_what_a_credit_costs_now(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.ledger.change_price(ORG, 1_000_000, context=top_up_env.payment_env.request())
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        assert top_up_env.last.terms.total_minor == 118_000

    def test_two_that_see_the_same_balance_begin_one(
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
        assert len(top_up_env.facts(AutoTopUpBegun)) == 1
        assert top_up_env.payment_env.gateway.taken_minor == 2 * COST

    def test_a_hot_organisation_is_topped_up_all_the_same(
        self, top_up_env: AutoTopUpEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        top_up_env.switch_on()
        top_up_env.spend(900)
        top_up_env.catch_up()
        append, left = top_up_env.payment_env.ledger.runner.store.append, [OPTIMISTIC_ATTEMPTS]

        def append_late(events: Any, **more: Any) -> int:
            if left[0] and any(isinstance(envelope.event, PaymentRequested) for envelope in events):
                left[0] -= 1
                top_up_env.spend(1)
            return append(events, **more)

        monkeypatch.setattr(top_up_env.payment_env.ledger.runner.store, "append", append_late)
        assert top_up_env.after(seconds=2) == 1
        assert len(top_up_env.facts(AutoTopUpBegun)) == 1

    def test_a_payment_under_way_is_waited_for(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.gateway.card_answers = AttemptStatus.PENDING
        top_up_env.spend(900)
        assert top_up_env.after(seconds=2) == 1
        assert [top_up_env.after(hours=20), top_up_env.after(hours=20)] == [0, 0]
        assert top_up_env.last.status is PaymentStatus.PENDING  # its bank may take 36 hours

    def test_a_bank_that_never_answers_is_given_up(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.gateway.card_answers = AttemptStatus.PENDING
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        top_up_env.after(days=2)
        assert top_up_env.payment_env.payments.payment(
            top_up_env.facts(AutoTopUpBegun)[0].payment_id
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

    def test_a_charge_whose_answer_is_lost_is_not_sent_again(self, top_up_env: AutoTopUpEnvironment) -> None:
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

    def test_a_refused_card_is_tried_on_three_days_and_then_no_more(
        self, top_up_env: AutoTopUpEnvironment
    ) -> None:
        top_up_env.switch_on(TopUpTerms(1_000, 200, 5))
        top_up_env.payment_env.gateway.card_answers = AttemptStatus.FAILED
        top_up_env.spend(900)
        assert [top_up_env.after(hours=12) for _ in range(8)] == [1, 0, 1, 0, 1, 0, 0, 0]
        assert [event.reason for event in top_up_env.facts(AutoTopUpHeld)] == [HeldReason.PAYMENT_FAILED] * 2
        (off,) = top_up_env.facts(AutoTopUpSwitchedOff)
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
        top_up_env.payment_env.ledger.change_price(ORG, 1_600_000, context=top_up_env.payment_env.request())
        top_up_env.spend(900)
        assert top_up_env.after(seconds=2) == 0
        assert top_up_env.standing.off_reason is OffReason.PRICE_ROSE

    def test_an_organisation_billed_by_agreement_buys_nothing(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        top_up_env.payment_env.change_plan(Plan.ENTERPRISE)
        assert top_up_env.after(seconds=2) == 0
        assert top_up_env.standing.is_on
        top_up_env.spend(900)
        top_up_env.after(seconds=2)
        assert top_up_env.standing.off_reason is OffReason.NOT_FOR_SALE
        with pytest.raises(BilledByAgreement):
            top_up_env.order()

    def test_a_broken_one_does_not_stop_the_others(
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
    def test_no_more_begin_on_a_day_than_it_allows(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        for _ in range(3):
            top_up_env.spend(1_000)
            top_up_env.after(minutes=1)
        assert [event.number for event in top_up_env.facts(AutoTopUpBegun)] == [1, 2]
        assert top_up_env.standing.held_reason_at(top_up_env.payment_env.now) is HeldReason.LIMIT_REACHED
        assert top_up_env.standing.count_started_on(top_up_env.payment_env.now) == 2
        top_up_env.after(days=1)
        assert top_up_env.standing.held_reason_at(top_up_env.payment_env.now) is None
        assert [event.number for event in top_up_env.facts(AutoTopUpBegun)] == [1, 2, 1]

    def test_what_did_not_lift_the_balance_is_not_repeated(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on(TopUpTerms(1_000, 200, 10))
        top_up_env.spend(5_000)
        assert [top_up_env.after(minutes=1) for _ in range(3)] == [1, 0, 0]
        assert top_up_env.standing.held_reason_at(top_up_env.payment_env.now) is HeldReason.TOO_SMALL

    def test_allowing_more_takes_effect_at_once(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on(TopUpTerms(1_000, 200, 1))
        for _ in range(2):
            top_up_env.spend(1_000)
            top_up_env.after(minutes=1)
        top_up_env.change(TopUpTerms(1_000, 200, 2))
        assert top_up_env.after(minutes=1) == 1


class TestChanging:
    def test_what_costs_more_than_was_agreed_to_is_refused(self, top_up_env: AutoTopUpEnvironment) -> None:
        top_up_env.switch_on()
        with pytest.raises(InvalidInput) as refused:
            top_up_env.change(TopUpTerms(1_001, 200))
        assert refused.value.field == "credits"

    def test_switched_off_is_off_and_the_card_is_forgotten(self, top_up_env: AutoTopUpEnvironment) -> None:
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
        assert top_up_env.standing.off_reason is OffReason.ASKED

    def test_the_card_is_not_forgotten_where_it_was_switched_on_anew_meanwhile(
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
        assert top_up_env.standing.is_on
