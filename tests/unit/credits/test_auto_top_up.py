"""Auto top-up decides when credits are bought automatically, and when it pauses."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from domain.credits.auto_top_up import (
    CONSECUTIVE_FAILURES_MAX,
    THRESHOLD_MAX,
    TOP_UPS_PER_DAY_MAX,
    LastTopUpStatus,
    TopUpTerms,
)
from domain.credits.auto_top_up_events import (
    AutoTopUpBegun,
    AutoTopUpHeld,
    AutoTopUpSwitchedOff,
    AutoTopUpSwitchedOn,
    HeldReason,
    OffReason,
)
from domain.credits.errors import AutoTopUpNotOn
from domain.credits.organisation import Organisation, evolve
from domain.shared.errors import InvalidInput
from tests.unit.credits.builders import charge, grant, opened, request, state_of

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
COST = 2_000
_numbers = count(1)


class Buyer:
    """An organisation with 100 credits that tops up below 200, with a clock that the test moves."""

    def __init__(self, per_day: int = 1, time_zone: str = "UTC") -> None:
        self.organisation = opened(time_zone=time_zone)
        grant(self.organisation, 100)
        self.now = NOON
        self.organisation.switch_on_auto_top_up(
            TopUpTerms(1_000, 200, per_day),
            payment_id="payment-1",
            amount_minor_max=COST,
            context=self.request(),
        )
        self.organisation.collect_events()

    def request(self) -> Any:
        return request(self.now, actor=None)

    def top_up(self, last: LastTopUpStatus = LastTopUpStatus.NONE, total_minor: int = COST) -> list[Any]:
        """Let the organisation decide, and return the resulting events."""
        self.organisation.start_top_up(f"top-{next(_numbers)}", total_minor, last, self.request())
        return [envelope.event for envelope in self.organisation.collect_events()]

    def kinds(self, last: LastTopUpStatus = LastTopUpStatus.NONE, **more: Any) -> list[type]:
        return [type(event) for event in self.top_up(last, **more)]


def begun(recorded: list[Any]) -> AutoTopUpBegun:
    (event,) = recorded
    assert isinstance(event, AutoTopUpBegun)
    return event


def test_it_starts_when_credits_are_low() -> None:
    event = begun(Buyer().top_up())
    assert (event.credits, event.day, event.number, event.failures) == (1_000, date(2026, 7, 1), 1, 0)


def test_it_does_nothing_while_there_are_enough() -> None:
    buyer = Buyer()
    grant(buyer.organisation, 100)
    buyer.organisation.collect_events()
    assert buyer.top_up() == []


def test_holds_count_as_spent() -> None:
    buyer = Buyer()
    grant(buyer.organisation, 100)
    charge(buyer.organisation, 1)
    buyer.organisation.collect_events()
    assert buyer.kinds() == [AutoTopUpBegun]


def test_nothing_is_bought_while_it_is_off() -> None:
    organisation = opened()
    organisation.collect_events()
    assert organisation.start_top_up("top-1", COST, LastTopUpStatus.NONE, request()) is None
    assert organisation.collect_events() == []


def test_one_top_up_is_open_at_a_time() -> None:
    buyer = Buyer(per_day=2)
    begun(buyer.top_up())
    assert buyer.top_up(LastTopUpStatus.UNDER_WAY) == []


class TestDailyLimit:
    def test_the_daily_limit_is_recorded_once(self) -> None:
        buyer = Buyer(per_day=2)
        assert [begun(buyer.top_up(LastTopUpStatus.PAID)).number for _ in range(2)] == [1, 2]
        (held,) = buyer.top_up(LastTopUpStatus.PAID)
        assert held == AutoTopUpHeld(
            NOON, None, "request-1", HeldReason.LIMIT_REACHED, date(2026, 7, 1), per_day=2
        )
        assert buyer.top_up(LastTopUpStatus.PAID) == []

    def test_the_pause_ends_on_the_next_day(self) -> None:
        buyer = Buyer()
        begun(buyer.top_up())
        buyer.top_up(LastTopUpStatus.PAID)
        buyer.now += timedelta(hours=11, minutes=59, seconds=59)
        assert buyer.top_up(LastTopUpStatus.PAID) == []
        buyer.now += timedelta(seconds=1)
        assert begun(buyer.top_up(LastTopUpStatus.PAID)).day == date(2026, 7, 2)

    def test_a_day_is_local_to_the_organisation(self) -> None:
        buyer = Buyer(time_zone="Asia/Kolkata")
        buyer.now = datetime(2026, 7, 1, 18, 29, 59, tzinfo=UTC)
        assert begun(buyer.top_up()).day == date(2026, 7, 1)
        buyer.now += timedelta(seconds=1)
        assert begun(buyer.top_up(LastTopUpStatus.PAID)).day == date(2026, 7, 2)

    def test_a_day_of_25_hours_is_a_day(self) -> None:
        buyer = Buyer(time_zone="America/New_York")
        buyer.now = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)  # midnight; clocks go back at two
        begun(buyer.top_up())
        buyer.now += timedelta(hours=24, minutes=59)
        assert buyer.kinds(LastTopUpStatus.PAID) == [AutoTopUpHeld]
        buyer.now += timedelta(minutes=1)
        begun(buyer.top_up(LastTopUpStatus.PAID))

    @pytest.mark.parametrize("time_zone", ["Pacific/Kiritimati", "Pacific/Midway"])
    def test_a_zone_change_does_not_reduce_the_count_within_a_day(self, time_zone: str) -> None:
        buyer = Buyer()
        begun(buyer.top_up())
        buyer.organisation.change_time_zone(time_zone, buyer.request())
        buyer.organisation.collect_events()
        buyer.now += timedelta(hours=23, minutes=59)
        assert buyer.kinds(LastTopUpStatus.PAID) == [AutoTopUpHeld]
        buyer.now += timedelta(days=1, minutes=1)
        begun(buyer.top_up(LastTopUpStatus.PAID))

    def test_a_higher_limit_takes_effect_immediately(self) -> None:
        buyer = Buyer()
        begun(buyer.top_up())
        buyer.top_up(LastTopUpStatus.PAID)
        buyer.organisation.change_auto_top_up(TopUpTerms(1_000, 200, 2), COST, buyer.request())
        buyer.organisation.collect_events()
        assert begun(buyer.top_up(LastTopUpStatus.PAID)).number == 2

    def test_switching_off_and_on_does_not_end_the_pause(self) -> None:
        buyer = Buyer()
        begun(buyer.top_up())
        buyer.organisation.switch_off_auto_top_up(OffReason.ASKED, buyer.request())
        buyer.organisation.switch_on_auto_top_up(
            TopUpTerms(1_000, 200, 1), payment_id="payment-2", amount_minor_max=COST, context=buyer.request()
        )
        buyer.organisation.collect_events()
        assert buyer.kinds() == [AutoTopUpHeld]

    def test_old_attempts_are_dropped(self) -> None:
        buyer = Buyer()
        for _ in range(10):
            begun(buyer.top_up(LastTopUpStatus.PAID))
            buyer.now += timedelta(days=1)
        assert buyer.organisation.auto_top_up is not None
        assert len(buyer.organisation.auto_top_up.attempts) == 3


class TestFailures:
    def test_a_refused_card_is_tried_again_tomorrow(self) -> None:
        buyer = Buyer(per_day=10)
        begun(buyer.top_up())
        (held,) = buyer.top_up(LastTopUpStatus.FAILED)
        assert held.reason is HeldReason.PAYMENT_FAILED
        assert buyer.top_up(LastTopUpStatus.FAILED) == []
        buyer.now += timedelta(days=1)
        assert begun(buyer.top_up(LastTopUpStatus.FAILED)).failures == 1

    def test_after_three_days_it_switches_itself_off(self) -> None:
        buyer = Buyer()
        for failures in range(CONSECUTIVE_FAILURES_MAX):
            last = LastTopUpStatus.FAILED if failures else LastTopUpStatus.NONE
            assert begun(buyer.top_up(last)).failures == failures
            buyer.now += timedelta(days=1)
        (off,) = buyer.top_up(LastTopUpStatus.FAILED)
        assert off == AutoTopUpSwitchedOff(buyer.now, None, "request-1", OffReason.PAYMENTS_FAILED)
        assert buyer.top_up(LastTopUpStatus.FAILED) == []

    def test_a_paid_top_up_resets_the_count_of_failures(self) -> None:
        buyer = Buyer()
        begun(buyer.top_up())
        buyer.now += timedelta(days=1)
        assert begun(buyer.top_up(LastTopUpStatus.FAILED)).failures == 1
        buyer.now += timedelta(days=1)
        assert begun(buyer.top_up(LastTopUpStatus.PAID)).failures == 0


class TestMoney:
    def test_more_than_was_agreed_to_is_never_charged(self) -> None:
        buyer = Buyer()
        (off,) = buyer.top_up(total_minor=COST + 1)
        assert off.reason is OffReason.PRICE_ROSE

    def test_more_credits_than_agreed_need_a_new_purchase(self) -> None:
        buyer = Buyer()
        with pytest.raises(InvalidInput) as refused:
            buyer.organisation.change_auto_top_up(TopUpTerms(2_000, 200), 2 * COST, buyer.request())
        assert refused.value.field == "credits"

    def test_a_top_up_that_was_too_small_is_not_repeated_on_the_same_day(self) -> None:
        buyer = Buyer(per_day=10)
        begun(buyer.top_up())
        buyer.organisation.complete_top_up(buyer.request())  # still below the threshold
        (held,) = [envelope.event for envelope in buyer.organisation.collect_events()]
        assert held.reason is HeldReason.TOO_SMALL
        buyer.organisation.complete_top_up(buyer.request())
        assert buyer.organisation.collect_events() == []
        assert buyer.top_up(LastTopUpStatus.PAID) == []
        buyer.now += timedelta(days=1)
        begun(buyer.top_up(LastTopUpStatus.PAID))

    @pytest.mark.parametrize("is_on", [True, False])
    def test_a_sufficient_top_up_records_no_pause(self, is_on: bool) -> None:
        buyer = Buyer()
        if is_on:
            grant(buyer.organisation, 1_000)
        else:
            buyer.organisation.switch_off_auto_top_up(OffReason.ASKED, buyer.request())
        buyer.organisation.collect_events()
        buyer.organisation.complete_top_up(buyer.request())
        assert buyer.organisation.collect_events() == []


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (TopUpTerms(1_000, 0), "threshold"),
        (TopUpTerms(1_000, THRESHOLD_MAX + 1), "threshold"),
        (TopUpTerms(1_000, 1, 0), "per_day"),
        (TopUpTerms(1_000, 1, TOP_UPS_PER_DAY_MAX + 1), "per_day"),
    ],
)
def test_terms_out_of_range_are_refused(terms: TopUpTerms, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        terms.check()
    assert refused.value.field == field


def test_it_cannot_be_changed_or_switched_off_while_it_is_off() -> None:
    organisation = opened()
    with pytest.raises(AutoTopUpNotOn):
        organisation.switch_off_auto_top_up(OffReason.ASKED, request())
    with pytest.raises(AutoTopUpNotOn):
        organisation.change_auto_top_up(TopUpTerms(1_000, 200), COST, request())


def test_its_history_and_its_snapshot_give_the_same_state() -> None:
    buyer = Buyer(per_day=2)
    begun(buyer.top_up())
    buyer.top_up(LastTopUpStatus.FAILED)
    organisation = buyer.organisation
    restored = evolve(None, organisation.snapshot())
    assert state_of(restored) == state_of(organisation)
    assert state_of(organisation.fork()) == state_of(organisation)


def test_switching_on_again_uses_the_new_card() -> None:
    buyer = Buyer()
    envelope = buyer.organisation.switch_on_auto_top_up(
        TopUpTerms(500, 50), payment_id="payment-2", amount_minor_max=1_000, context=buyer.request()
    )
    assert isinstance(envelope.event, AutoTopUpSwitchedOn)
    organisation: Organisation = buyer.organisation
    state = organisation.auto_top_up
    assert state is not None
    assert (state.card_of, state.amount_minor_max, state.terms.credits) == ("payment-2", 1_000, 500)
