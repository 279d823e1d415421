"""Every decision begins the same way: holds past their end expire first, and crossings count from there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from domain.credits.audit_events import ApiKeyIssued
from domain.credits.auto_top_up import LastTopUpStatus, TopUpTerms
from domain.credits.auto_top_up_events import OffReason
from domain.credits.events import CreditsReplenished, GrantKind, HoldExpired, LowBalanceThresholdSet
from domain.credits.holds import HoldMode, HoldRequest
from domain.credits.organisation import Organisation
from domain.pricing.plans import Plan
from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import InvariantViolation
from domain.shared.money import Cost
from tests.unit.credits.builders import NOON, opened, purchase, request

LATER = request(NOON + timedelta(hours=2))
TERMS = TopUpTerms(1_000, 200)


def wanted(run_id: str) -> HoldRequest:
    return HoldRequest(run_id, 100, HoldMode.UP_TO, None, None, False, 0, "", None)


def with_two_holds() -> Organisation:
    """Return an organisation with 1,100 credits, of which a hold of an hour has 100 and one of a day 100."""
    organisation = opened(trial_credits=100)
    purchase(organisation, 1_000)
    organisation.switch_on_auto_top_up(TERMS, payment_id="pay-1", amount_minor_max=2_000, context=request())
    organisation.place_hold(wanted("run-1"), NOON + timedelta(hours=1), request(), reported={})
    organisation.place_hold(wanted("run-2"), NOON + timedelta(days=1), request(), reported={})
    organisation.collect_events()
    return organisation


def last_hold(organisation: Organisation) -> str:
    return organisation.holds["run-2"].hold_id


DECISIONS: dict[str, Callable[[Organisation], object]] = {
    "grant": lambda it: it.grant(1, GrantKind.ADMIN, "goodwill", LATER),
    "refund_purchase": lambda it: it.refund_purchase(
        3, 10, payment_id="pay-1", refund_id="refund-1", cost=Cost(1, 0), context=LATER
    ),
    "start_pro": lambda it: it.start_pro(LATER.at + timedelta(days=365), LATER),
    "change_plan": lambda it: it.change_plan(Plan.ENTERPRISE, None, LATER),
    "change_price": lambda it: it.change_price(1, LATER),
    "change_time_zone": lambda it: it.change_time_zone("Asia/Kolkata", LATER),
    "set_low_balance_threshold": lambda it: it.set_low_balance_threshold(5, LATER),
    "record_audit_event": lambda it: it.record_audit_event(ApiKeyIssued(*LATER.event_header, "key-1")),
    "switch_on_auto_top_up": lambda it: it.switch_on_auto_top_up(
        TERMS, payment_id="pay-2", amount_minor_max=2_000, context=LATER
    ),
    "change_auto_top_up": lambda it: it.change_auto_top_up(TERMS, 2_000, LATER),
    "switch_off_auto_top_up": lambda it: it.switch_off_auto_top_up(OffReason.ASKED, LATER),
    "start_top_up": lambda it: it.start_top_up("pay-2", 2_000, LastTopUpStatus.NONE, LATER),
    "complete_top_up": lambda it: it.complete_top_up(LATER),
    "place_hold": lambda it: it.place_hold(
        wanted("run-3"), LATER.at + timedelta(hours=1), LATER, reported={}
    ),
    "release_hold": lambda it: it.release_hold(last_hold(it), LATER),
    "expire_holds": lambda it: it.expire_holds(LATER),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_holds_past_their_end_expire_before_a_decision(name: str) -> None:
    organisation = with_two_holds()
    DECISIONS[name](organisation)
    first, *others = organisation.collect_events()
    assert isinstance(first.event, HoldExpired)
    assert first.event.run_id == "run-1"
    assert not any(isinstance(each.event, HoldExpired) for each in others)


def test_an_event_cannot_be_recorded_by_a_decision_that_did_not_begin() -> None:
    with pytest.raises(AssertionError, match="begins with _begin"):
        with_two_holds()._record(LowBalanceThresholdSet(*LATER.event_header, 5))


def test_credits_that_an_expired_hold_frees_are_a_crossing_whatever_was_decided() -> None:
    organisation = opened(trial_credits=100)
    organisation.place_hold(wanted("run-1"), NOON + timedelta(hours=1), request(), reported={})
    organisation.collect_events()
    organisation.complete_top_up(LATER)
    assert [type(each.event) for each in organisation.collect_events()] == [HoldExpired, CreditsReplenished]


def test_organisations_are_equal_when_their_snapshots_are() -> None:
    organisation, other = with_two_holds(), with_two_holds()
    assert organisation == other == organisation.fork()
    other.change_price(1, request())
    assert organisation != other
    assert organisation != "org-4711"


def test_an_event_of_another_aggregate_is_not_part_of_a_history() -> None:
    organisation = with_two_holds()
    stranger = EventEnvelope(organisation.id, organisation.version + 1, organisation.snapshot().event)
    with pytest.raises(InvariantViolation, match="not part of a history of Organisation"):
        stranger.mutate(organisation)
    assert organisation == with_two_holds()
