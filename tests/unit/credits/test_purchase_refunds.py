"""Refunds of purchased credits, and the purchase and end of the Pro subscription."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from domain.credits.errors import RefundExceedsPurchase
from domain.credits.events import CreditsExhausted, PlanChanged, PurchaseRefunded
from domain.credits.holds import HoldMode, HoldRequest
from domain.credits.organisation import Organisation
from domain.pricing.plans import Plan
from domain.shared.aggregate import EventEnvelope
from domain.shared.money import Cost
from tests.unit.credits.builders import NOON, charge, grant, lots_of, opened, purchase, request

YEAR = timedelta(days=365)


def refund(organisation: Organisation, bought: EventEnvelope, credits_count: int) -> PurchaseRefunded:
    envelope = organisation.refund_purchase(
        bought.originator_version,
        credits_count,
        payment_id="payment-1",
        refund_id="refund-1",
        cost=Cost(2 * credits_count, 0),
        context=request(),
    )
    organisation.check_invariants()
    assert isinstance(envelope.event, PurchaseRefunded)
    return envelope.event


def test_unspent_credits_are_taken_from_the_lot_of_their_purchase() -> None:
    organisation = opened()
    purchase(organisation, 1_000, payment_id="pay-0")
    bought = purchase(organisation, 1_000)
    free = grant(organisation, 5)
    event = refund(organisation, bought, 400)
    assert (event.credits, event.balance_delta, event.amount_minor) == (400, -400, 800)
    assert organisation.balance == 1_605
    assert lots_of(organisation) == [
        (free.originator_version, 5),
        (2, 1_000),
        (bought.originator_version, 600),
    ]


def test_spent_credits_are_not_refunded() -> None:
    organisation = opened()
    bought = purchase(organisation, 1_000)
    charge(organisation, 700)
    assert organisation.refundable(bought.originator_version) == 300
    with pytest.raises(RefundExceedsPurchase) as refusal:
        refund(organisation, bought, 301)
    assert refusal.value.details == {"refundable": 300}


def test_held_credits_are_not_refunded() -> None:
    organisation = opened()
    bought = purchase(organisation, 1_000)
    organisation.place_hold(
        HoldRequest("run-1", 900, HoldMode.ALL_OR_NOTHING, None, None, True, 0, "", None),
        NOON + timedelta(hours=1),
        request(),
        reported={},
    )
    assert organisation.refundable(bought.originator_version) == 100


def test_a_purchase_that_paid_an_overdraft_refunds_only_the_rest() -> None:
    organisation = opened()
    charge(organisation, 400)
    assert organisation.refundable(purchase(organisation, 1_000).originator_version) == 600


def test_only_a_purchase_can_be_refunded() -> None:
    assert opened(trial_credits=200).refundable(99) == 0


def test_a_full_refund_exhausts_the_credits() -> None:
    organisation = opened()
    bought = purchase(organisation, 1_000)
    organisation.collect_events()
    refund(organisation, bought, 1_000)
    assert isinstance(organisation.collect_events()[-1].event, CreditsExhausted)
    assert lots_of(organisation) == []


@pytest.mark.parametrize(("spent_meanwhile", "left"), [(0, 1_000), (600, 400), (700, 300), (1_000, 0)])
def test_restored_credits_pay_an_overdraft_first(spent_meanwhile: int, left: int) -> None:
    organisation = opened()
    bought = purchase(organisation, 1_000)
    event = refund(organisation, bought, 400)
    charge(organisation, spent_meanwhile)
    restored = organisation.reverse_purchase_refund(event, request())
    organisation.check_invariants()
    assert restored.event.balance_delta == 400
    assert organisation.balance == left
    assert lots_of(organisation) == ([(bought.originator_version, left)] if left else [])


class TestPro:
    def test_it_starts_once_and_expires(self) -> None:
        organisation = opened()
        assert organisation.start_pro(NOON + YEAR, request())
        assert not organisation.start_pro(NOON + 2 * YEAR, request())
        assert organisation.plan_expires_at == NOON + YEAR
        assert not organisation.expire_pro(request(NOON + YEAR - timedelta(seconds=1)))
        assert organisation.expire_pro(request(NOON + YEAR))
        assert (organisation.plan, organisation.plan_expires_at) == (Plan.PAY_AS_YOU_GO, None)
        assert not organisation.expire_pro(request(NOON + YEAR))

    def test_an_expired_subscription_may_be_bought_again_before_its_end_is_recorded(self) -> None:
        organisation = opened()
        organisation.start_pro(NOON + YEAR, request())
        assert organisation.start_pro(NOON + 3 * YEAR, request(NOON + YEAR))
        assert organisation.plan_expires_at == NOON + 3 * YEAR

    @pytest.mark.parametrize("expires_at", [None, NOON + YEAR])
    def test_it_does_not_replace_custom_billing(self, expires_at: datetime | None) -> None:
        organisation = opened()
        organisation.change_plan(Plan.ENTERPRISE, expires_at, request())
        assert not organisation.start_pro(NOON + YEAR, request())
        assert organisation.plan is Plan.ENTERPRISE

    def test_pro_without_an_end_never_ends(self) -> None:
        organisation = opened()
        organisation.change_plan(Plan.PRO, None, request())
        assert not organisation.expire_pro(request(NOON + 9 * YEAR))

    def test_credits_bought_with_it_keep_the_plan(self) -> None:
        organisation = opened()
        organisation.start_pro(NOON + YEAR, request())
        purchase(organisation, 1_000)
        changed = [
            envelope.event
            for envelope in organisation.collect_events()
            if isinstance(envelope.event, PlanChanged)
        ]
        assert [event.plan for event in changed] == [Plan.PRO]
