"""A refund undoes the end of a charge first, as if the charge had been smaller."""

import pytest

from domain.credits.errors import RefundExceedsCharge
from domain.credits.events import ChargeRefunded
from domain.credits.lots import Lot, LotKind
from domain.credits.refund_allocation import lot_opened_by
from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import InvalidInput, InvariantViolation
from tests.unit.credits.builders import (
    NOON,
    TENTH,
    Story,
    charge,
    charged,
    grant,
    lots_of,
    opened,
    purchase,
    request,
    state_of,
    usage,
)

FREE, OLD, NEW = 2, 3, 5
"""Numbers of the lots below: a grant, the first purchase (which also ends the trial), the second."""


@pytest.fixture
def story() -> Story:
    """An organisation with 100 free credits and two paid lots of 100."""
    organisation = opened()
    grant(organisation, 100)
    purchase(organisation, 100)
    purchase(organisation, 100, payment_id="pay-2")
    assert lots_of(organisation) == [(FREE, 100), (OLD, 100), (NEW, 100)]
    return Story(organisation)


def test_a_refund_has_its_charge_and_its_lots(story: Story) -> None:
    charge_event = charge(story.organisation, 30)
    assert story.refund(charge_event) == ChargeRefunded(
        NOON,
        "u-1",
        "request-1",
        charge_event.originator_version,
        30,
        (Lot(LotKind.FREE, FREE, 100, 30),),
        0,
        "photos were blurred",
        "run-88",
        1042,
        "City Marathon 2026",
    )


def test_a_full_refund_returns_to_the_lots_of_the_charge(story: Story) -> None:
    before = lots_of(story.organisation)
    charge_event = charge(story.organisation, 250)
    story.refund(charge_event)
    assert lots_of(story.organisation) == before
    assert story.organisation.balance == 300


def test_a_partial_refund_returns_to_the_last_drawn_lot(story: Story) -> None:
    charge_event = charge(story.organisation, 250)
    refund = story.refund(charge_event, 60)
    assert refund.returned == (Lot(LotKind.PAID, NEW, 100, 50), Lot(LotKind.PAID, OLD, 100, 10))
    assert lots_of(story.organisation) == [(OLD, 10), (NEW, 100)]


def test_a_second_partial_refund_continues_where_the_first_ended(story: Story) -> None:
    charge_event = charge(story.organisation, 250)
    story.refund(charge_event, 60)
    second = story.refund(charge_event, 100)
    assert second.returned == (Lot(LotKind.PAID, OLD, 100, 90), Lot(LotKind.FREE, FREE, 100, 10))
    rest = story.refund(charge_event)
    assert rest.returned == (Lot(LotKind.FREE, FREE, 100, 90),)
    assert lots_of(story.organisation) == [(FREE, 100), (OLD, 100), (NEW, 100)]


def test_a_reopened_lot_takes_its_old_place_before_newer_ones(story: Story) -> None:
    charge_event = charge(story.organisation, 50)
    charge(story.organisation, 50)
    newer = grant(story.organisation, 10).originator_version
    story.refund(charge_event)
    assert lots_of(story.organisation) == [(FREE, 50), (newer, 10), (OLD, 100), (NEW, 100)]


def test_the_same_credits_may_be_charged_and_refunded_again(story: Story) -> None:
    for _ in range(3):
        story.refund(charge(story.organisation, 250))
    assert lots_of(story.organisation) == [(FREE, 100), (OLD, 100), (NEW, 100)]


class TestOverdraft:
    def test_an_open_overdraft_is_paid_by_undoing_it(self) -> None:
        story = Story(opened(trial_credits=200))
        charge_event = charge(story.organisation, 500)
        refund = story.refund(charge_event, 250)
        assert (refund.overdraft_covered, refund.returned) == (250, ())
        assert (story.organisation.balance, story.organisation.overdraft) == (-50, 50)

    def test_the_rest_after_the_overdraft_returns_to_the_lots(self) -> None:
        story = Story(opened(trial_credits=200))
        charge_event = charge(story.organisation, 500)
        refund = story.refund(charge_event, 350)
        assert refund.overdraft_covered == 300
        assert lots_of(story.organisation) == [(2, 50)]

    def test_an_overdraft_of_another_charge_is_paid_too(self, story: Story) -> None:
        covered_charge = charge(story.organisation, 300)
        charge(story.organisation, 40)
        refund = story.refund(covered_charge, 100)
        assert refund.overdraft_covered == 40
        assert refund.returned == (Lot(LotKind.PAID, NEW, 100, 60),)
        assert story.organisation.balance == 60

    def test_a_part_after_a_part_that_paid_an_overdraft(self, story: Story) -> None:
        covered_charge = charge(story.organisation, 300)
        charge(story.organisation, 40)
        story.refund(covered_charge, 100)
        second = story.refund(covered_charge, 100)
        assert (second.overdraft_covered, second.returned) == (0, (Lot(LotKind.PAID, OLD, 100, 100),))

    def test_a_paid_overdraft_is_refunded_as_a_free_lot(self) -> None:
        story = Story(opened())
        charge_event = charge(story.organisation, 30)
        purchase(story.organisation, 100)
        refund = story.refund(charge_event)
        number = story.organisation.version
        assert refund.returned == (Lot(LotKind.FREE, number, 30, 30),)
        assert lots_of(story.organisation) == [(number, 30), (3, 70)]

    def test_a_charge_on_such_a_lot_is_refunded_to_it(self) -> None:
        story = Story(opened())
        overdrawn = charge(story.organisation, 30)
        purchase(story.organisation, 100)
        story.refund(overdrawn)
        reopened = story.organisation.version

        charge_event = charge(story.organisation, 40)
        refund = story.refund(charge_event)

        assert [allocation.lot for allocation in charged(charge_event).draws] == [reopened, 3]
        assert [lot.number for lot in refund.returned] == [3, reopened]
        assert lots_of(story.organisation) == [(reopened, 30), (3, 70)]

    def test_each_part_of_a_paid_overdraft_opens_a_lot_of_its_own(self) -> None:
        story = Story(opened())
        charge_event = charge(story.organisation, 30)
        purchase(story.organisation, 100)
        story.refund(charge_event, 10)
        story.refund(charge_event, 20)
        assert [remaining for _, remaining in lots_of(story.organisation)] == [10, 20, 70]

    def test_an_overdraft_paid_in_part(self) -> None:
        story = Story(opened())
        charge_event = charge(story.organisation, 30)
        grant(story.organisation, 20)
        refund = story.refund(charge_event)
        assert (refund.overdraft_covered, [lot.remaining for lot in refund.returned]) == (10, [20])
        assert (story.organisation.balance, story.organisation.overdraft) == (20, 0)


class TestLimits:
    @pytest.mark.parametrize("refunded_before", [0, 20])
    def test_a_refund_cannot_exceed_the_rest_of_the_charge(self, story: Story, refunded_before: int) -> None:
        charge_event = charge(story.organisation, 50)
        if refunded_before:
            story.refund(charge_event, refunded_before)
        before = state_of(story.organisation)
        with pytest.raises(RefundExceedsCharge, match="of its 50 credits left to refund") as refusal:
            story.refund(charge_event, 51 - refunded_before)
        assert refusal.value.details == {"charged": 50, "refundable": 50 - refunded_before}
        assert state_of(story.organisation) == before

    @pytest.mark.parametrize("credits_count", [None, 1])
    def test_a_refunded_charge_cannot_be_refunded_again(
        self, story: Story, credits_count: int | None
    ) -> None:
        charge_event = charge(story.organisation, 50)
        story.refund(charge_event)
        with pytest.raises(RefundExceedsCharge, match="has 0 of its 50 credits left"):
            story.refund(charge_event, credits_count)

    def test_a_free_charge_cannot_be_refunded(self, story: Story) -> None:
        free_of_charge = story.organisation.charge(usage(500), 0, NOON)
        with pytest.raises(RefundExceedsCharge, match="has 0 of its 0 credits left"):
            story.refund(free_of_charge)

    @pytest.mark.parametrize("credits_count", [0, -5])
    def test_a_refund_has_at_least_one_credit(self, story: Story, credits_count: int) -> None:
        charge_event = charge(story.organisation, 50)
        with pytest.raises(InvalidInput, match="at least 1 credit") as refusal:
            story.refund(charge_event, credits_count)
        assert refusal.value.field == "credits"

    def test_only_a_charge_can_be_refunded(self, story: Story) -> None:
        addition = grant(story.organisation, 10)
        with pytest.raises(InvariantViolation, match="event 6 is not a charge"):
            story.organisation.refund(
                addition, None, earlier_refunds=(), opened_lots=(), reason="", context=request()
            )


def test_a_refund_does_not_affect_the_rounding_of_its_run() -> None:
    story = Story(opened(trial_credits=100))
    first = story.organisation.charge(usage(4), TENTH, NOON)
    story.refund(first)
    second = story.organisation.charge(usage(6), TENTH, NOON)
    third = story.organisation.charge(usage(1), TENTH, NOON)
    assert [charged(envelope).credits for envelope in (first, second, third)] == [1, 0, 1]


def test_spending_returned_credits_does_not_change_the_event(story: Story) -> None:
    refund = story.refund(charge(story.organisation, 250))
    charge(story.organisation, 300)
    assert [lot.remaining for lot in refund.returned] == [50, 100, 100]


@pytest.mark.parametrize("overdraft_covered", [0, 40])
def test_the_event_of_an_addition_gives_its_lot(overdraft_covered: int) -> None:
    organisation = opened()
    if overdraft_covered:
        charge(organisation, overdraft_covered)
    for envelope in (grant(organisation.fork(), 100), purchase(organisation.fork(), 100)):
        (lot,) = lot_opened_by(envelope)
        assert (lot.number, lot.size, lot.remaining) == (
            envelope.originator_version,
            100 - overdraft_covered,
            100 - overdraft_covered,
        )


def test_a_charge_and_a_refund_to_old_lots_open_none(story: Story) -> None:
    charge_event = charge(story.organisation, 50)
    refund = story.refund(charge_event)
    assert lot_opened_by(charge_event) == ()
    assert lot_opened_by(EventEnvelope(story.organisation.id, story.organisation.version, refund)) == ()
