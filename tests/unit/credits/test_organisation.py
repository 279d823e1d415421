"""The decisions of an organisation: opening, additions, charges, prices, plans and zones."""

from datetime import UTC, date, datetime, timedelta

import pytest

from domain.credits.audit_events import ApiKeyIssued
from domain.credits.errors import CurrencyMismatch
from domain.credits.events import (
    CreditsGranted,
    CreditsPurchased,
    GrantKind,
    OrganisationOpened,
    PlanChanged,
    PriceChanged,
    TimeZoneChanged,
    UsageCharged,
)
from domain.credits.limits import CREDITS_MAX
from domain.credits.lots import Lot, LotAllocation, LotKind
from domain.credits.organisation import Organisation, evolve
from domain.credits.refund_allocation import lot_opened_by
from domain.pricing.plans import Plan
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS, UsageType
from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import InvalidInput, InvariantViolation
from domain.shared.money import PRICE_MILLIONTHS_MAX, Cost, Currency
from domain.shared.stream_keys import stream_id
from tests.unit.credits.builders import (
    NOON,
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


class TestOpening:
    def test_an_organisation_opens_on_trial_with_free_credits(self) -> None:
        organisation = Organisation.open(
            "org-4711",
            time_zone="Asia/Kolkata",
            currency=Currency.INR,
            price_millionths=1_500_000,
            trial_credits=200,
            context=request(),
        )

        assert organisation.id == stream_id("org-4711")
        assert (organisation.plan, organisation.plan_expires_at) == (Plan.TRIAL, None)
        assert (organisation.balance, organisation.available) == (200, 200)
        assert [envelope.event for envelope in organisation.collect_events()] == [
            OrganisationOpened(
                NOON, "u-1", "request-1", "org-4711", "Asia/Kolkata", Currency.INR, 1_500_000, Plan.TRIAL
            ),
            CreditsGranted(NOON, "u-1", "request-1", 200, GrantKind.TRIAL, "trial", 0),
        ]

    def test_an_organisation_may_open_without_credits(self) -> None:
        organisation = opened(trial_credits=0)
        assert (organisation.version, organisation.balance, organisation.lots) == (1, 0, [])

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"time_zone": "Asia/Calcuta"}, "time_zone"),
            ({"price_millionths": -1}, "price_millionths"),
            ({"price_millionths": PRICE_MILLIONTHS_MAX + 1}, "price_millionths"),
            ({"trial_credits": -1}, "credits"),
            ({"trial_credits": CREDITS_MAX + 1}, "credits"),
        ],
    )
    def test_bad_input_is_refused_by_name(self, fields: dict[str, object], field: str) -> None:
        with pytest.raises(InvalidInput) as refusal:
            opened(**fields)  # type: ignore[arg-type]
        assert refusal.value.field == field

    def test_events_are_collected_once_and_numbered_from_one(self) -> None:
        organisation = opened(trial_credits=200)
        assert [envelope.originator_version for envelope in organisation.collect_events()] == [1, 2]
        assert organisation.collect_events() == []


class TestGrants:
    @pytest.mark.parametrize("kind", GrantKind)
    def test_a_grant_opens_a_free_lot_named_by_its_event(self, kind: GrantKind) -> None:
        organisation = opened()
        envelope = grant(organisation, 50, kind)
        assert organisation.lots == [Lot(LotKind.FREE, envelope.originator_version, 50, 50)]

    @pytest.mark.parametrize("credits_count", [0, -1, CREDITS_MAX + 1])
    def test_a_grant_has_between_one_and_a_million_million_credits(self, credits_count: int) -> None:
        organisation = opened()
        with pytest.raises(InvalidInput, match="between 1 and 1,000,000,000,000"):
            grant(organisation, credits_count)
        assert organisation.version == 1

    def test_a_grant_does_not_end_the_trial(self) -> None:
        organisation = opened(trial_credits=200)
        grant(organisation, 50)
        assert organisation.plan is Plan.TRIAL


class TestPurchases:
    def test_a_purchase_opens_a_paid_lot_and_records_what_was_paid(self) -> None:
        organisation = opened(currency=Currency.INR, price_millionths=1_500_000)
        envelope = purchase(organisation, 1_000)
        assert organisation.lots == [Lot(LotKind.PAID, 2, 1_000, 1_000)]
        assert envelope.event == CreditsPurchased(
            NOON,
            "u-1",
            "request-1",
            1_000,
            "pay-1",
            "order-1",
            "razorpay",
            1_500_000,
            150_000,
            27_000,
            Currency.INR,
            0,
        )

    def test_the_first_purchase_ends_the_trial(self) -> None:
        organisation = opened(trial_credits=200)
        purchase(organisation, 1_000)
        assert (organisation.plan, organisation.plan_expires_at) == (Plan.PAY_AS_YOU_GO, None)
        assert organisation.balance == 1_200
        recorded = [type(envelope.event) for envelope in organisation.collect_events()]
        assert recorded == [OrganisationOpened, CreditsGranted, CreditsPurchased, PlanChanged]

    @pytest.mark.parametrize("plan", [Plan.PAY_AS_YOU_GO, Plan.PRO, Plan.ENTERPRISE])
    def test_a_purchase_keeps_any_other_plan(self, plan: Plan) -> None:
        organisation = opened()
        organisation.change_plan(plan, NOON + timedelta(days=365), request())
        purchase(organisation, 1_000)
        assert (organisation.plan, organisation.plan_expires_at) == (plan, NOON + timedelta(days=365))

    def test_another_currency_is_refused(self) -> None:
        organisation = opened(currency=Currency.USD)
        with pytest.raises(CurrencyMismatch, match="pays in USD, not INR"):
            organisation.purchase(
                1_000,
                payment_id="pay-1",
                order_id="order-1",
                gateway="razorpay",
                unit_price_millionths=1_500_000,
                cost=Cost(150_000, 27_000),
                currency=Currency.INR,
                context=request(),
            )
        assert (organisation.version, organisation.plan) == (1, Plan.TRIAL)

    @pytest.mark.parametrize(
        ("credits_count", "price_millionths", "field"),
        [(0, 20_000, "credits"), (1_000, -1, "price_millionths")],
    )
    def test_bad_input_is_refused_by_name(
        self, credits_count: int, price_millionths: int, field: str
    ) -> None:
        organisation = opened()
        with pytest.raises(InvalidInput) as refusal:
            organisation.purchase(
                credits_count,
                payment_id="pay-1",
                order_id="order-1",
                gateway="razorpay",
                unit_price_millionths=price_millionths,
                cost=Cost(0, 0),
                currency=Currency.USD,
                context=request(),
            )
        assert refusal.value.field == field
        assert organisation.version == 1


class TestCharges:
    def test_a_charge_records_usage_and_draws(self) -> None:
        organisation = opened(trial_credits=200)
        report = usage(120, message_id="m-1", hold_id="hold-3")

        envelope = organisation.charge(report, WHOLE_CREDIT_MILLIONTHS, NOON + timedelta(minutes=1))

        assert organisation.balance == 80
        assert envelope.event == UsageCharged(
            NOON + timedelta(minutes=1),
            "u-17",
            "m-1",
            "/photo-processing/worker-7",
            "run-88",
            UsageType.PHOTO_PROCESSING,
            120,
            True,
            WHOLE_CREDIT_MILLIONTHS,
            120,
            (LotAllocation(2, 120),),
            0,
            1042,
            "City Marathon 2026",
            NOON,
            date(2026, 7, 1),
            "hold-3",
        )
        assert charged(envelope).charge_fingerprint == report.charge_fingerprint
        assert envelope.event.balance_delta == -120

    def test_free_credits_are_spent_before_older_paid_ones(self) -> None:
        organisation = opened()
        bought = purchase(organisation, 100).originator_version
        given = grant(organisation, 100).originator_version
        later = grant(organisation, 100).originator_version

        envelope = charge(organisation, 250)

        assert charged(envelope).draws == (
            LotAllocation(given, 100),
            LotAllocation(later, 100),
            LotAllocation(bought, 50),
        )
        assert lots_of(organisation) == [(bought, 50)]

    @pytest.mark.parametrize(
        ("photos", "left"),
        [(99, [(2, 1), (3, 100)]), (100, [(3, 100)]), (101, [(3, 99)])],
        ids=["all but one", "to the last credit", "one of the next"],
    )
    def test_the_edge_of_a_lot(self, photos: int, left: list[tuple[int, int]]) -> None:
        organisation = opened()
        grant(organisation, 100)
        grant(organisation, 100)
        charge(organisation, photos)
        assert lots_of(organisation) == left
        organisation.check_invariants()

    def test_a_charge_is_never_refused_and_the_uncovered_part_is_overdraft(self) -> None:
        organisation = opened(trial_credits=200)
        assert charged(charge(organisation, 500)).overdraft == 300
        assert charged(charge(organisation, 50)).overdraft == 50
        assert (organisation.balance, organisation.available, organisation.overdraft) == (-350, -350, 350)
        assert organisation.lots == []

    def test_the_next_addition_pays_the_overdraft_first(self) -> None:
        organisation = opened()
        charge(organisation, 300)

        first = grant(organisation, 100).event
        second = purchase(organisation, 1_000)

        assert isinstance(first, CreditsGranted)
        assert first.overdraft_covered == 100
        assert isinstance(second.event, CreditsPurchased)
        assert second.event.overdraft_covered == 200
        assert organisation.lots == [Lot(LotKind.PAID, second.originator_version, 800, 800)]
        assert (organisation.balance, organisation.overdraft) == (800, 0)

    def test_an_addition_that_only_pays_the_overdraft_opens_no_lot(self) -> None:
        organisation = opened()
        charge(organisation, 100)
        envelope = grant(organisation, 100)
        assert (organisation.balance, organisation.overdraft, organisation.lots) == (0, 0, [])
        assert lot_opened_by(envelope) == ()

    def test_free_photos_are_an_event_without_credits(self) -> None:
        organisation = opened(trial_credits=200)
        envelope = organisation.charge(usage(500, ai_search=False), 0, NOON)
        assert (charged(envelope).credits, charged(envelope).draws, charged(envelope).overdraft) == (0, (), 0)
        assert (organisation.version, organisation.balance) == (3, 200)

    def test_no_photos_are_an_event_without_credits(self) -> None:
        organisation = opened()
        assert charged(charge(organisation, 0)).credits == 0
        assert organisation.overdraft == 0

    def test_a_rate_of_several_credits_a_photo(self) -> None:
        organisation = opened(trial_credits=200)
        envelope = organisation.charge(usage(7), 3 * WHOLE_CREDIT_MILLIONTHS, NOON)
        assert charged(envelope).credits == 21

    def test_a_moment_outside_the_calendar_is_refused_and_changes_nothing(self) -> None:
        organisation = opened(trial_credits=200, time_zone="America/New_York")
        before = state_of(organisation)
        with pytest.raises((OverflowError, ValueError), match="out of range"):
            charge(organisation, 5, occurred_at=datetime.min.replace(tzinfo=UTC))
        assert state_of(organisation) == before


class TestChanges:
    def test_a_new_price_does_not_change_earlier_purchases(self) -> None:
        organisation = opened(price_millionths=20_000)
        before = purchase(organisation, 1_000).event
        envelope = organisation.change_price(15_000, request())
        after = purchase(organisation, 1_000).event
        assert isinstance(before, CreditsPurchased)
        assert isinstance(after, CreditsPurchased)
        assert envelope.event == PriceChanged(NOON, "u-1", "request-1", 15_000)
        assert (before.amount_minor, after.amount_minor) == (2_000, 1_500)

    @pytest.mark.parametrize("price_millionths", [-1, PRICE_MILLIONTHS_MAX + 1])
    def test_a_price_out_of_range_is_refused(self, price_millionths: int) -> None:
        organisation = opened(price_millionths=20_000)
        with pytest.raises(InvalidInput, match="the price must be between 0 and"):
            organisation.change_price(price_millionths, request())
        assert organisation.price_millionths == 20_000

    def test_credits_may_cost_nothing(self) -> None:
        organisation = opened()
        organisation.change_price(0, request())
        assert organisation.price_millionths == 0

    def test_a_plan_with_an_end_and_one_without(self) -> None:
        organisation = opened()
        in_a_year = NOON + timedelta(days=365)
        envelope = organisation.change_plan(Plan.PRO, in_a_year, request())
        assert envelope.event == PlanChanged(NOON, "u-1", "request-1", Plan.PRO, in_a_year)
        assert (organisation.plan, organisation.plan_expires_at) == (Plan.PRO, in_a_year)
        organisation.change_plan(Plan.ENTERPRISE, None, request())
        assert (organisation.plan, organisation.plan_expires_at) == (Plan.ENTERPRISE, None)

    def test_the_day_of_a_charge_uses_the_zone_at_that_moment(self) -> None:
        organisation = opened(time_zone="Asia/Kolkata")
        new_year_in_kolkata = datetime(2026, 12, 31, 18, 30, tzinfo=UTC)
        before = charge(organisation, 5, occurred_at=new_year_in_kolkata)

        envelope = organisation.change_time_zone("America/New_York", request())
        after = charge(organisation, 5, occurred_at=new_year_in_kolkata)

        assert envelope.event == TimeZoneChanged(NOON, "u-1", "request-1", "America/New_York")
        assert charged(before).day == date(2027, 1, 1)
        assert charged(after).day == date(2026, 12, 31)

    def test_an_unknown_zone_is_refused(self) -> None:
        organisation = opened(time_zone="Asia/Kolkata")
        with pytest.raises(InvalidInput, match="is not an IANA time zone"):
            organisation.change_time_zone("Mars/Olympus", request())
        assert organisation.time_zone == "Asia/Kolkata"

    def test_changes_move_no_credits(self) -> None:
        organisation = opened()
        changes = [
            organisation.change_price(15_000, request()),
            organisation.change_plan(Plan.PRO, None, request()),
            organisation.change_time_zone("Asia/Kolkata", request()),
        ]
        assert [change.event.balance_delta for change in changes] == [0, 0, 0]
        assert all(lot_opened_by(change) == () for change in changes)


class TestAudit:
    def test_api_key_events_change_no_credits(self) -> None:
        organisation = opened(trial_credits=200)
        organisation.collect_events()
        organisation.record_audit_event(ApiKeyIssued(NOON, "u-1", "request-2", "0f3a9c5d7e21"))
        (noted,) = organisation.collect_events()
        assert noted.event == ApiKeyIssued(NOON, "u-1", "request-2", "0f3a9c5d7e21")
        assert (organisation.version, organisation.balance) == (3, 200)


class TestReplay:
    def test_events_replayed_in_order_give_the_same_organisation(self) -> None:
        organisation = opened(trial_credits=200)
        charge(organisation, 150)
        purchase(organisation, 1_000)
        charge(organisation, 150)

        replayed: Organisation | None = None
        for envelope in organisation.collect_events():
            replayed = evolve(replayed, envelope)

        assert replayed is not None
        assert state_of(replayed) == state_of(organisation)

    def test_a_gap_in_the_history_is_refused(self) -> None:
        organisation = opened(trial_credits=200)
        charge(organisation, 150)
        opening, _, usage_charged = organisation.collect_events()
        with pytest.raises(InvariantViolation, match=r"event 3 of .* does not follow version 1"):
            usage_charged.mutate(evolve(None, opening))

    def test_an_event_that_comes_twice_is_refused(self) -> None:
        organisation = opened(trial_credits=200)
        opening, trial = organisation.collect_events()
        replayed = trial.mutate(evolve(None, opening))
        with pytest.raises(InvariantViolation, match=r"event 2 of .* does not follow version 2"):
            trial.mutate(replayed)

    def test_an_event_of_another_organisation_is_refused(self) -> None:
        organisation = opened()
        stranger = EventEnvelope(stream_id("org-1"), 2, grant(opened(), 10).event)
        with pytest.raises(InvariantViolation, match="does not follow"):
            stranger.mutate(organisation)


class TestSnapshots:
    def test_a_snapshot_restores_the_whole_state(self) -> None:
        organisation = opened(trial_credits=200, time_zone="Asia/Kolkata", currency=Currency.INR)
        purchase(organisation, 1_000)
        organisation.change_plan(Plan.PRO, NOON + timedelta(days=365), request())
        organisation.charge(usage(15), 100_000, NOON)
        restored = evolve(None, organisation.snapshot())
        assert state_of(restored) == state_of(organisation)

    def test_a_snapshot_of_an_overdraft(self) -> None:
        organisation = opened()
        charge(organisation, 30)
        assert evolve(None, organisation.snapshot()).balance == -30

    def test_a_snapshot_is_independent_of_the_organisation(self) -> None:
        organisation = opened(trial_credits=200)
        snapshot = organisation.snapshot()
        charge(organisation, 150)
        first, second = evolve(None, snapshot), evolve(None, snapshot)
        charge(first, 20)
        assert (organisation.balance, first.balance, second.balance) == (50, 180, 200)
        assert evolve(None, snapshot).balance == 200

    def test_a_snapshot_is_not_an_event_of_a_history(self) -> None:
        snapshot = opened().snapshot()
        assert snapshot.event.balance_delta == 0
        with pytest.raises(InvariantViolation, match="not part of a history"):
            EventEnvelope(snapshot.originator_id, 2, snapshot.event).mutate(opened())


class TestForks:
    def test_decisions_of_a_fork_do_not_change_the_organisation(self) -> None:
        organisation = opened(trial_credits=200)
        purchase(organisation, 1_000)
        organisation.charge(usage(15), 100_000, NOON)
        before = state_of(organisation)
        pending = len(organisation.collect_events())

        fork = organisation.fork()
        assert state_of(fork) == before
        assert fork.collect_events() == []
        charge(fork, 5_000)
        fork.charge(usage(15), 100_000, NOON)
        grant(fork, 10_000)
        fork.change_price(1, request())
        fork.change_plan(Plan.PRO, NOON, request())
        fork.change_time_zone("Asia/Kolkata", request())

        assert state_of(organisation) == before
        assert organisation.collect_events() == []
        assert pending == 5

    def test_decisions_of_the_organisation_do_not_change_a_fork(self) -> None:
        organisation = opened(trial_credits=200)
        fork = organisation.fork()
        charge(organisation, 150)
        assert (organisation.balance, fork.balance) == (50, 200)


class TestInvariants:
    def test_a_balance_that_differs_from_its_lots(self) -> None:
        organisation = opened(trial_credits=200)
        organisation.balance += 1
        with pytest.raises(InvariantViolation, match="are not the balance of org-4711"):
            organisation.check_invariants()

    @pytest.mark.parametrize("remaining", [0, 201])
    def test_a_lot_out_of_its_bounds(self, remaining: int) -> None:
        organisation = opened(trial_credits=200)
        organisation.lots[0].remaining = organisation.balance = remaining
        with pytest.raises(InvariantViolation, match="out of its bounds"):
            organisation.check_invariants()

    def test_an_overdraft_with_credits_that_could_pay_it(self) -> None:
        organisation = opened(trial_credits=200)
        organisation.overdraft, organisation.balance = 50, 150
        with pytest.raises(InvariantViolation, match="an overdraft although it has credits"):
            organisation.check_invariants()

    def test_an_overdraft_below_zero(self) -> None:
        organisation = opened()
        organisation.overdraft, organisation.balance = -50, 50
        with pytest.raises(InvariantViolation, match="an overdraft although it has credits"):
            organisation.check_invariants()
