"""The Pro subscription decides when it can be bought, when it is over and when it can be resumed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain.credits.events import PlanChanged
from domain.credits.subscription import Subscription
from domain.pricing.plans import Plan
from tests.unit.credits.builders import NOON, opened, request

END = NOON + timedelta(days=365)


@pytest.mark.parametrize(
    ("plan", "expires_at", "can_buy", "is_over"),
    [
        (Plan.TRIAL, None, True, False),
        (Plan.PAY_AS_YOU_GO, None, True, False),
        (Plan.ENTERPRISE, None, False, False),
        (Plan.PRO, None, False, False),
        (Plan.PRO, END, False, False),
        (Plan.PRO, NOON, True, True),
    ],
)
def test_pro_is_for_sale_unless_it_runs_or_there_is_an_agreement(
    plan: Plan, expires_at: object, can_buy: bool, is_over: bool
) -> None:
    subscription = Subscription(plan, expires_at)  # type: ignore[arg-type]
    assert subscription.can_buy_pro(NOON) is can_buy
    assert subscription.is_over(NOON) is is_over


def test_only_pro_with_the_same_end_is_ending_at_it() -> None:
    assert Subscription(Plan.PRO, END).is_ending_at(END)
    assert not Subscription(Plan.PRO, END).is_ending_at(NOON)
    assert not Subscription(Plan.PAY_AS_YOU_GO, END).is_ending_at(END)


def test_pro_that_was_ended_early_can_be_resumed_while_time_is_left() -> None:
    organisation = opened()
    organisation.change_plan(Plan.PAY_AS_YOU_GO, None, request())
    assert not organisation.resume_pro(NOON, request())
    assert organisation.resume_pro(END, request())
    assert not organisation.resume_pro(END, request())
    assert [event.event for event in organisation.collect_events()][-1] == PlanChanged(
        NOON, "u-1", "request-1", Plan.PRO, END
    )
