"""Auto top-up on a real database: switched on with a purchase, begun when credits are low, once each time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import Any, cast

import psycopg
import pytest

from domain.auto_top_up import HeldReason, OffReason, TopUpTerms
from domain.errors import (
    AutoTopUpIsOff,
    AutoTopUpIsOn,
    BillingDetailsMissing,
    BillingIsCustom,
    GatewayUnknown,
    InvalidInput,
)
from domain.facts import Plan
from domain.gateway import AttemptStatus
from domain.invoicing import BillingOnFile
from domain.payment import Payment
from domain.payment_facts import PaymentRequested, PaymentStatus
from domain.rate_card import WHOLE_CREDIT_MILLIONTHS
from domain.recording import OPTIMISTIC_ATTEMPTS
from domain.top_up_facts import AutoTopUpBegun, AutoTopUpHeld, AutoTopUpSwitchedOff
from infra.bootstrap import open_ledger
from infra.event_store.recorder import LedgerEventStore
from infra.papers import PostgresPapers
from infra.payment_keeper import PaymentKeeper
from infra.top_up_keeper import TopUpKeeper
from projections.runner import ProjectionRunner
from projections.top_up_views import AutoTopUpStanding, auto_top_up
from tests.integration.test_payments import ORG, PAYG, PRO, Shop
from tests.sales import billed_to
from tests.usage_reports import usage_report

TERMS = TopUpTerms(credits=1_000, threshold=200, per_day=2)
COST = 177_000


class Office:
    """A shop whose organisation tops up below 200 credits, twice a day at most; and who sees to it."""

    def __init__(self, shop: Shop, conninfo: str, connection: psycopg.Connection) -> None:
        self.shop = shop
        self._conninfo = conninfo
        self._connection = connection
        self._numbers = count(1)
        self.keeper = self.another_keeper()
        self._payments = PaymentKeeper(shop.payments, conninfo, lambda: shop.now)

    def put_details(self) -> None:
        """Put on file who pays: a card is kept for somebody who is known."""
        datastore = cast(LedgerEventStore, self.shop.ledger.events).recorder.datastore
        on_file = BillingOnFile(billed_to(), self.shop.now, "u-1")
        PostgresPapers(datastore).put_billing_details(self.shop.name, on_file, b"salt")

    def another_keeper(self) -> TopUpKeeper:
        return TopUpKeeper(
            self.shop.payments, self._conninfo, lambda: self.shop.now, lambda: str(next(self._numbers))
        )

    def order(self, terms: TopUpTerms = TERMS, **options: Any) -> Payment:
        """Begin the purchase that switches it on."""
        quoted = self.shop.payments.quote(
            ORG,
            PAYG,
            terms.credits,
            quote_id=f"quote-{next(self._numbers)}",
            request=self.shop.request(),
            top_up=terms,
        )
        return self.shop.begin(quoted, **options).payment

    def switch_on(self, terms: TopUpTerms = TERMS) -> Payment:
        return self.shop.pay(self.order(terms))

    def spend(self, photos: int) -> None:
        """Charge photos, as the pipeline's messages do."""
        organisation = self.shop.ledger.organisation(ORG)
        report = usage_report(
            message_id=f"message-{next(self._numbers)}",
            organisation_id=ORG,
            occurred_at=self.shop.now,
            photos=photos,
        )
        organisation.charge(report, WHOLE_CREDIT_MILLIONTHS, self.shop.now)
        self.shop.ledger.recording.store.append(organisation.collect_events(), once=None, answer=b"")

    def catch_up(self) -> None:
        ProjectionRunner(self._conninfo).catch_up()

    def after(self, **time: float) -> int:
        """Let time pass, have everything seen to, and return how many top-ups began."""
        self.shop.now += timedelta(**time)
        self.catch_up()
        begun = self.keeper.begin_due(self._connection)
        self.catch_up()
        self._payments.look_after(self._connection)
        self.catch_up()
        return begun

    def facts(self, kind: type) -> list[Any]:
        events = self.shop.ledger.events.get(self.shop.ledger.organisation(ORG).id)
        return [event.fact for event in events if isinstance(event.fact, kind)]

    @property
    def last(self) -> Payment:
        """The payment of the last top-up."""
        return self.shop.payments.payment(self.facts(AutoTopUpBegun)[-1].payment_id)

    @property
    def standing(self) -> AutoTopUpStanding:
        self.catch_up()
        return auto_top_up(self._connection, ORG)

    def change(self, terms: TopUpTerms) -> None:
        self.shop.payments.top_ups.change(ORG, terms, request=self.shop.request())

    def switch_off(self) -> None:
        self.shop.payments.top_ups.switch_off(ORG, request=self.shop.request())


@pytest.fixture
def office(service_database: str) -> Iterator[Office]:
    with (
        closing(open_ledger(service_database)) as ledger,
        psycopg.connect(service_database, autocommit=True) as connection,
    ):
        office = Office(Shop(ledger), service_database, connection)
        office.put_details()
        yield office


class TestSwitchingOn:
    def test_it_is_off_until_somebody_switches_it_on(self, office: Office) -> None:
        office.shop.buy()
        office.spend(990)
        assert office.after(seconds=5) == 0
        assert not office.standing.is_on

    def test_a_purchase_switches_it_on_when_it_is_paid(self, office: Office) -> None:
        payment = office.order()
        assert not office.standing.is_on
        office.shop.pay(payment)
        standing = office.standing
        assert (standing.is_on, standing.credits, standing.threshold, standing.per_day) == (
            True,
            1_000,
            200,
            2,
        )
        assert (standing.card_of, standing.most_minor) == (payment.terms.payment_id, COST)

    def test_a_purchase_that_is_not_paid_switches_nothing_on(self, office: Office) -> None:
        office.shop.pay(office.order(), status=AttemptStatus.FAILED)
        assert not office.standing.is_on

    def test_a_gateway_that_charges_no_card_again_cannot_take_it(self, office: Office) -> None:
        office.shop.gateway.charges_again = False
        with pytest.raises(GatewayUnknown):
            office.order()

    def test_a_card_is_kept_for_somebody_who_is_known(self, office: Office) -> None:
        card = office.switch_on()
        order = office.shop.gateway.orders[str(card.order_id)]
        assert (order.payer.email, order.mandate_minor) == ("pay@buyer.example", COST)

    def test_nobodys_card_is_kept(self, office: Office) -> None:
        office._connection.execute("DELETE FROM ledger.billing_details")
        with pytest.raises(BillingDetailsMissing):
            office.order()

    def test_while_it_is_on_no_other_card_is_taken(self, office: Office) -> None:
        office.switch_on()
        with pytest.raises(AutoTopUpIsOn):
            office.order()

    def test_of_two_purchases_at_once_the_last_one_paid_counts_and_the_other_card_is_forgotten(
        self, office: Office
    ) -> None:
        first, second = office.order(), office.order()
        card = office.shop.pay(first)
        office.shop.pay(second)
        assert office.standing.card_of == second.terms.payment_id
        assert office.shop.gateway.forgotten == [card.gateway_payment_id]

    def test_a_purchase_that_fails_late_takes_nothing_from_the_other(self, office: Office) -> None:
        first, second = office.order(), office.order()
        office.shop.pay(first)
        office.shop.pay(second, status=AttemptStatus.FAILED)
        assert office.standing.card_of == first.terms.payment_id
        assert office.shop.gateway.forgotten == []

    def test_it_comes_with_credits_alone(self, office: Office) -> None:
        with pytest.raises(InvalidInput):
            office.shop.payments.quote(
                ORG, PRO, 1_000, quote_id="q", request=office.shop.request(), top_up=TERMS
            )


class TestToppingUp:
    def test_low_credits_are_bought_once_with_the_card(self, office: Office) -> None:
        office.switch_on()
        office.spend(801)
        assert office.after(seconds=2) == 1
        assert office.shop.balance == 1_199
        assert office.after(seconds=2) == 0
        terms = office.last.terms
        assert (terms.total_minor, terms.actor, terms.quote_id) == (COST, None, None)
        assert office.last.status is PaymentStatus.COMPLETED
        assert office.shop.gateway.taken_minor == 2 * COST

    def test_enough_is_left_alone(self, office: Office) -> None:
        office.switch_on()
        office.spend(800)
        assert office.after(seconds=2) == 0

    def test_who_looks_at_an_old_balance_buys_nothing(self, office: Office) -> None:
        office.switch_on()
        office.spend(900)
        office.catch_up()
        office.shop.buy()
        assert office.keeper.begin_due(office._connection) == 0
        assert office.facts(AutoTopUpBegun) == []

    def test_what_is_paid_is_not_charged_once_more(self, office: Office) -> None:
        office.switch_on()
        office.spend(900)
        office.after(seconds=2)
        orders = office.shop.payments._orders
        assert orders.charge(office.last.terms.payment_id, office.shop.request()) == ()
        assert office.shop.gateway.taken_minor == 2 * COST

    def test_it_pays_what_a_credit_costs_now(self, office: Office) -> None:
        office.switch_on()
        office.shop.ledger.change_price(ORG, 1_000_000, request=office.shop.request())
        office.spend(900)
        office.after(seconds=2)
        assert office.last.terms.total_minor == 118_000

    def test_two_that_see_the_same_balance_begin_one(self, office: Office, service_database: str) -> None:
        office.switch_on()
        office.spend(900)
        office.catch_up()

        def begin(keeper: TopUpKeeper) -> int:
            with psycopg.connect(service_database, autocommit=True) as connection:
                return keeper.begin_due(connection)

        with ThreadPoolExecutor(4) as pool:
            begun = list(pool.map(begin, [office.another_keeper() for _ in range(4)]))
        assert sum(begun) == 1
        assert len(office.facts(AutoTopUpBegun)) == 1
        assert office.shop.gateway.taken_minor == 2 * COST

    def test_a_hot_organisation_is_topped_up_all_the_same(
        self, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        office.switch_on()
        office.spend(900)
        office.catch_up()
        append, left = office.shop.ledger.recording.store.append, [OPTIMISTIC_ATTEMPTS]

        def append_late(events: Any, **more: Any) -> int:
            if left[0] and any(isinstance(event.fact, PaymentRequested) for event in events):
                left[0] -= 1
                office.spend(1)
            return append(events, **more)

        monkeypatch.setattr(office.shop.ledger.recording.store, "append", append_late)
        assert office.after(seconds=2) == 1
        assert len(office.facts(AutoTopUpBegun)) == 1

    def test_a_payment_under_way_is_waited_for(self, office: Office) -> None:
        office.switch_on()
        office.shop.gateway.card_answers = AttemptStatus.PENDING
        office.spend(900)
        assert office.after(seconds=2) == 1
        assert [office.after(hours=20), office.after(hours=20)] == [0, 0]
        assert office.last.status is PaymentStatus.PENDING  # its bank may take 36 hours

    def test_a_bank_that_never_answers_is_given_up(self, office: Office) -> None:
        office.switch_on()
        office.shop.gateway.card_answers = AttemptStatus.PENDING
        office.spend(900)
        office.after(seconds=2)
        office.after(days=2)
        assert office.shop.payments.payment(office.facts(AutoTopUpBegun)[0].payment_id).status is (
            PaymentStatus.ABANDONED
        )


class TestWhatGoesWrong:
    def test_a_gateway_that_is_down_charges_later_and_once(self, office: Office) -> None:
        office.switch_on()
        office.spend(900)
        office.shop.gateway.is_down = True
        assert office.after(seconds=2) == 1
        assert office.after(seconds=30) == 0
        office.shop.gateway.is_down = False
        office.after(minutes=1)
        assert office.shop.balance == 1_100
        assert office.shop.gateway.taken_minor == 2 * COST

    def test_a_charge_whose_answer_is_lost_is_not_sent_again(self, office: Office) -> None:
        office.switch_on()
        office.spend(900)
        gateway = office.shop.gateway

        def lose(name: str) -> None:
            if name == "after charge":
                gateway._step = lambda _: None
                gateway.is_down = True
                gateway._begin("the answer")

        gateway._step = lose
        office.after(seconds=2)
        gateway.is_down = False
        office.after(minutes=1)
        assert office.shop.balance == 1_100
        assert gateway.taken_minor == 2 * COST

    def test_a_refused_card_is_tried_on_three_days_and_then_no_more(self, office: Office) -> None:
        office.switch_on(TopUpTerms(1_000, 200, 5))
        office.shop.gateway.card_answers = AttemptStatus.FAILED
        office.spend(900)
        assert [office.after(hours=12) for _ in range(8)] == [1, 0, 1, 0, 1, 0, 0, 0]
        assert [fact.reason for fact in office.facts(AutoTopUpHeld)] == [HeldReason.PAYMENT_FAILED] * 2
        (off,) = office.facts(AutoTopUpSwitchedOff)
        assert off.reason is OffReason.PAYMENTS_FAILED
        assert office.shop.gateway.forgotten != []

    def test_a_card_that_is_gone_fails_the_payment(self, office: Office) -> None:
        card = office.switch_on()
        office.shop.gateway.forget_card(str(card.gateway_payment_id))
        office.spend(900)
        office.after(seconds=2)
        assert office.last.status is PaymentStatus.FAILED
        assert office.last.order_id is not None

    def test_an_order_that_is_refused_fails_the_payment(self, office: Office) -> None:
        office.switch_on()
        office.shop.gateway.refuses_orders = True
        office.spend(900)
        office.after(seconds=2)
        assert office.last.status is PaymentStatus.FAILED
        assert office.last.order_id is None

    def test_a_price_that_rose_is_not_charged(self, office: Office) -> None:
        office.switch_on()
        office.shop.ledger.change_price(ORG, 1_600_000, request=office.shop.request())
        office.spend(900)
        assert office.after(seconds=2) == 0
        assert office.standing.off_reason is OffReason.PRICE_ROSE

    def test_an_organisation_billed_by_agreement_buys_nothing(self, office: Office) -> None:
        office.switch_on()
        office.shop.change_plan(Plan.ENTERPRISE)
        assert office.after(seconds=2) == 0
        assert office.standing.is_on
        office.spend(900)
        office.after(seconds=2)
        assert office.standing.off_reason is OffReason.NOT_FOR_SALE
        with pytest.raises(BillingIsCustom):
            office.order()

    def test_a_broken_one_does_not_stop_the_others(
        self, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        office.switch_on()
        office.spend(900)
        monkeypatch.setattr(
            office.shop.payments.top_ups,
            "begin",
            lambda *_, **__: (_ for _ in ()).throw(InvalidInput("x", "y")),
        )
        assert office.after(seconds=2) == 0
        assert office.keeper.failures == 1


class TestTheBrake:
    def test_no_more_begin_on_a_day_than_it_allows(self, office: Office) -> None:
        office.switch_on()
        for _ in range(3):
            office.spend(1_000)
            office.after(minutes=1)
        assert [fact.number for fact in office.facts(AutoTopUpBegun)] == [1, 2]
        assert office.standing.held_back(office.shop.now) is HeldReason.LIMIT_REACHED
        assert office.standing.begun_on(office.shop.now) == 2
        office.after(days=1)
        assert office.standing.held_back(office.shop.now) is None
        assert [fact.number for fact in office.facts(AutoTopUpBegun)] == [1, 2, 1]

    def test_what_did_not_lift_the_balance_is_not_repeated(self, office: Office) -> None:
        office.switch_on(TopUpTerms(1_000, 200, 10))
        office.spend(5_000)
        assert [office.after(minutes=1) for _ in range(3)] == [1, 0, 0]
        assert office.standing.held_back(office.shop.now) is HeldReason.TOO_SMALL

    def test_allowing_more_takes_effect_at_once(self, office: Office) -> None:
        office.switch_on(TopUpTerms(1_000, 200, 1))
        for _ in range(2):
            office.spend(1_000)
            office.after(minutes=1)
        office.change(TopUpTerms(1_000, 200, 2))
        assert office.after(minutes=1) == 1


class TestChanging:
    def test_what_costs_more_than_was_agreed_to_is_refused(self, office: Office) -> None:
        office.switch_on()
        with pytest.raises(InvalidInput) as refused:
            office.change(TopUpTerms(1_001, 200))
        assert refused.value.field == "credits"

    def test_switched_off_is_off_and_the_card_is_forgotten(self, office: Office) -> None:
        card = office.switch_on()
        office.switch_off()
        office.spend(1_000)
        assert office.after(minutes=1) == 0
        assert office.shop.gateway.forgotten == [card.gateway_payment_id]
        with pytest.raises(AutoTopUpIsOff):
            office.switch_off()
        with pytest.raises(AutoTopUpIsOff):
            office.change(TERMS)

    def test_a_gateway_that_is_down_does_not_keep_it_on(self, office: Office) -> None:
        office.switch_on()
        office.shop.gateway.is_down = True
        office.switch_off()
        assert office.standing.off_reason is OffReason.ASKED

    def test_the_card_is_not_forgotten_where_it_was_switched_on_anew_meanwhile(
        self, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        office.switch_on()
        top_ups = office.shop.payments.top_ups
        forget = top_ups._forget_card

        def forget_late(organisation_id: str) -> None:
            office.switch_on()
            forget(organisation_id)

        monkeypatch.setattr(top_ups, "_forget_card", forget_late)
        office.switch_off()
        assert office.shop.gateway.forgotten == []
        assert office.standing.is_on
