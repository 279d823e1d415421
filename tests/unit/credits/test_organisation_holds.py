"""Holds: credits reserved for a run, used by its messages, and settled, released or expired."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from domain.credits.errors import HoldConflict, HoldNotFound, InsufficientCredits
from domain.credits.events import (
    BalanceWentLow,
    CreditsExhausted,
    CreditsReplenished,
    HoldExpired,
    HoldPlaced,
    HoldReleased,
    HoldSettled,
)
from domain.credits.holds import (
    PHOTOS_MAX,
    Hold,
    HoldMode,
    HoldRequest,
    check_photos,
    check_requested_photos,
)
from domain.credits.limits import CREDITS_MAX
from domain.credits.organisation import Organisation, evolve
from domain.credits.run_totals import RUN_TOTAL_RETENTION
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS, UsageType
from domain.shared.errors import InvalidInput, InvariantViolation
from tests.unit.credits.builders import (
    NOON,
    TENTH,
    charge,
    charged,
    grant,
    opened,
    request,
    state_of,
    usage,
)

HOUR = timedelta(hours=1)
ROTATION = UsageType.AI_IMAGE_ROTATION
WATERMARK = UsageType.WATERMARK_REPROCESS
PROCESSING = UsageType.PHOTO_PROCESSING


def wanted(credits_count: int, run_id: str = "run-88", **fields: Any) -> HoldRequest:
    defaults: dict[str, Any] = {
        "mode": HoldMode.ALL_OR_NOTHING,
        "usage_type": PROCESSING,
        "photos": credits_count,
        "ai_search": True,
        "event_id": 1042,
        "event_name": "City Marathon 2026",
        "user": "u-17",
    }
    return HoldRequest(run_id=run_id, credits=credits_count, **(defaults | fields))


def place(organisation: Organisation, credits_count: int, run_id: str = "run-88", **fields: Any) -> Hold:
    at: datetime = fields.pop("at", NOON)
    duration: timedelta = fields.pop("duration", HOUR)
    reported = fields.pop("reported", {})
    asked = wanted(credits_count, run_id, **fields)
    return organisation.place_hold(asked, at + duration, request(at), reported=reported)


def settle(
    organisation: Organisation, hold: Hold, photos: int, *, rate: int = WHOLE_CREDIT_MILLIONTHS, **fields: Any
) -> HoldSettled:
    return organisation.settle_hold(
        hold.hold_id,
        photos,
        usage_type=fields.pop("usage_type", PROCESSING),
        ai_search=True,
        rate_millionths=rate,
        context=request(fields.pop("at", NOON)),
    )


def use(organisation: Organisation, hold: Hold | None, photos: int, **fields: Any) -> Any:
    """Charge a message that names a hold."""
    return charged(charge(organisation, photos, hold_id=hold and hold.hold_id, **fields))


def credits_of(organisation: Organisation) -> tuple[int, int, int]:
    """Check the invariants, and return balance, on hold and available credits."""
    organisation.check_invariants()
    return organisation.balance, organisation.on_hold, organisation.available


def replayed(organisation: Organisation, before: Organisation) -> Organisation:
    """Return the organisation replayed from the events alone."""
    for envelope in organisation.collect_events():
        envelope.mutate(before)
    return before


@pytest.fixture
def organisation() -> Organisation:
    """An organisation with 200 credits and no uncollected events."""
    found = opened(trial_credits=200)
    found.collect_events()
    return found


class TestPlacing:
    def test_held_credits_are_not_available(self, organisation: Organisation) -> None:
        hold = place(organisation, 150)
        assert (hold.hold_id, hold.size, hold.remaining) == ("hold-3", 150, 150)
        assert credits_of(organisation) == (200, 150, 50)

    def test_all_or_nothing_is_refused_if_less_is_available(self, organisation: Organisation) -> None:
        place(organisation, 150)
        before = state_of(organisation)
        with pytest.raises(InsufficientCredits) as refused:
            place(organisation, 51, "run-89")
        assert refused.value.details == {"available": 50, "requested": 51}
        assert state_of(organisation) == before
        assert place(organisation, 50, "run-89").size == 50

    def test_up_to_takes_what_is_available(self, organisation: Organisation) -> None:
        place(organisation, 150)
        assert place(organisation, 500, "run-89", mode=HoldMode.UP_TO).size == 50
        assert credits_of(organisation) == (200, 200, 0)
        with pytest.raises(InsufficientCredits):
            place(organisation, 1, "run-90", mode=HoldMode.UP_TO)

    def test_a_free_run_holds_no_credits(self) -> None:
        organisation = opened()
        charge(organisation, 5)
        assert place(organisation, 0, mode=HoldMode.UP_TO).size == 0
        assert credits_of(organisation) == (-5, 0, -5)

    def test_a_repeated_request_returns_the_open_hold(self, organisation: Organisation) -> None:
        hold = place(organisation, 150)
        use(organisation, hold, 30)
        again = place(organisation, 150, duration=2 * HOUR)
        assert (again.hold_id, again.remaining, again.expires_at) == ("hold-3", 120, NOON + HOUR)
        assert credits_of(organisation) == (170, 120, 50)

    @pytest.mark.parametrize("other", [{"mode": HoldMode.UP_TO}, {"photos": 7}, {"usage_type": ROTATION}])
    def test_another_request_for_the_same_run_is_a_conflict(
        self, organisation: Organisation, other: dict[str, Any]
    ) -> None:
        place(organisation, 150)
        with pytest.raises(HoldConflict):
            place(organisation, 150, **other)

    @pytest.mark.parametrize("duration", [timedelta(0), -HOUR, timedelta(days=1, seconds=1)])
    def test_it_lasts_no_longer_than_a_day(self, organisation: Organisation, duration: timedelta) -> None:
        with pytest.raises(InvalidInput, match="a day"):
            place(organisation, 1, duration=duration)

    @pytest.mark.parametrize("credits_count", [-1, CREDITS_MAX + 1])
    def test_credits_are_in_bounds(self, organisation: Organisation, credits_count: int) -> None:
        with pytest.raises(InvalidInput, match="credits"):
            place(organisation, credits_count)

    def test_images_to_rotate_are_in_bounds(self) -> None:
        for photos in (1, 100_000):
            check_requested_photos(ROTATION, photos)
        check_requested_photos(PROCESSING, 0)
        for photos in (0, 100_001):
            with pytest.raises(InvalidInput, match="1 to 100,000"):
                check_requested_photos(ROTATION, photos)
        for photos in (-1, PHOTOS_MAX + 1):
            with pytest.raises(InvalidInput, match="photos"):
                check_photos(photos)


class TestUsage:
    def test_usage_draws_on_its_hold_first_then_on_available_credits(
        self, organisation: Organisation
    ) -> None:
        hold = place(organisation, 100)
        first, second = use(organisation, hold, 60), use(organisation, hold, 70)
        assert (first.from_hold, first.beyond_hold) == (60, 0)
        assert (second.from_hold, second.beyond_hold) == (40, 30)
        assert credits_of(organisation) == (70, 0, 70)

    def test_usage_without_a_hold_does_not_use_it(self, organisation: Organisation) -> None:
        hold = place(organisation, 100)
        other, unnamed = use(organisation, hold, 5, run_id="run-89"), use(organisation, None, 5)
        assert (other.from_hold, other.beyond_hold) == (0, 5), "the hold is of another run"
        assert (unnamed.from_hold, unnamed.beyond_hold) == (0, 0)
        assert credits_of(organisation) == (190, 100, 90)

    def test_usage_that_names_an_unknown_hold_is_charged_and_flagged(
        self, organisation: Organisation
    ) -> None:
        event = charged(charge(organisation, 5, hold_id="hold-99"))
        assert (event.credits, event.from_hold, event.beyond_hold) == (5, 0, 5)

    def test_usage_may_exceed_a_hold_below_zero(self, organisation: Organisation) -> None:
        hold = place(organisation, 100)
        place(organisation, 100, "run-89")
        use(organisation, hold, 150)
        assert credits_of(organisation) == (50, 100, -50)


class TestSettling:
    def test_it_charges_unreported_photos_and_releases_the_rest(self, organisation: Organisation) -> None:
        hold = place(organisation, 100)
        use(organisation, hold, 30)
        settled = settle(organisation, hold, 80)
        assert (settled.photos, settled.unreported_photos, settled.released) == (80, 50, 20)
        assert credits_of(organisation) == (120, 0, 120)
        unreported_photos = charged(organisation.collect_events()[2])
        assert (
            unreported_photos.credits,
            unreported_photos.from_hold,
            unreported_photos.event_id,
            unreported_photos.actor,
        ) == (50, 50, 1042, "u-17")

    @pytest.mark.parametrize(
        ("asked", "named", "settled"),
        [
            ((1042, "City Marathon"), (7, "Other"), (1042, "City Marathon")),
            ((0, ""), (7, "Fun Run"), (7, "Fun Run")),
            ((0, ""), (0, ""), (0, "")),
        ],
    )
    def test_its_photo_event_is_the_holds_or_else_the_messages(
        self,
        organisation: Organisation,
        asked: tuple[int, str],
        named: tuple[int, str],
        settled: tuple[int, str],
    ) -> None:
        hold = place(organisation, 100, event_id=asked[0], event_name=asked[1])
        use(organisation, hold, 10, event_id=named[0], event_name=named[1])
        use(organisation, hold, 10, event_id=0, event_name="")
        restored = evolve(None, organisation.snapshot())
        settle(restored, hold, 50)
        unreported_photos = charged(restored.collect_events()[0])
        assert (unreported_photos.photos, unreported_photos.event_id, unreported_photos.event_name) == (
            30,
            *settled,
        )

    def test_late_messages_of_a_settled_run_cost_nothing(self, organisation: Organisation) -> None:
        hold = place(organisation, 100)
        settle(organisation, hold, 80)
        late = [use(organisation, hold, photos) for photos in (50, 20, 25, 1)]
        assert [(event.credits, event.settled, event.new_photos) for event in late] == [
            (0, 50, 0),
            (0, 20, 0),
            (15, 10, 15),
            (1, 0, 1),
        ]
        assert late[2].beyond_hold == 15, "the hold is closed"
        assert credits_of(organisation) == (104, 0, 104)

    def test_it_settles_one_usage_type_of_one_run(self, organisation: Organisation) -> None:
        hold = place(organisation, 100)
        use(organisation, hold, 10, usage_type=ROTATION)
        assert settle(organisation, hold, 30).unreported_photos == 30
        assert use(organisation, hold, 5, usage_type=ROTATION).credits == 5
        assert use(organisation, hold, 5, run_id="run-89").credits == 5
        assert use(organisation, hold, 30).credits == 0

    def test_fewer_photos_than_reported_refund_nothing(self, organisation: Organisation) -> None:
        hold = place(organisation, 100)
        use(organisation, hold, 30)
        settled = settle(organisation, hold, 10)
        assert (settled.unreported_photos, settled.released) == (0, 70)
        assert credits_of(organisation) == (170, 0, 170)
        assert use(organisation, hold, 5).credits == 5

    @pytest.mark.parametrize(("photos", "unreported_photos"), [(120, 50), (70, 0), (40, 0)])
    def test_photos_reported_before_the_hold_are_not_charged_again(
        self, organisation: Organisation, photos: int, unreported_photos: int
    ) -> None:
        use(organisation, None, 40)
        before = organisation.fork()
        hold = place(organisation, 100, reported={PROCESSING: 40, ROTATION: 7})
        use(organisation, hold, 30)
        for envelope in organisation.collect_events()[1:]:
            envelope.mutate(before)
        assert state_of(before) == state_of(organisation), "the events alone give this state"
        assert settle(organisation, hold, photos).unreported_photos == unreported_photos
        assert credits_of(organisation) == (130 - unreported_photos, 0, 130 - unreported_photos)

    def test_fractions_round_once_per_run_settlement_included(self, organisation: Organisation) -> None:
        hold = place(organisation, 100, usage_type=WATERMARK, photos=1_000)
        organisation.charge(usage(4, usage_type=WATERMARK, hold_id=hold.hold_id), TENTH, NOON)
        settle(organisation, hold, 11, usage_type=WATERMARK, rate=TENTH)
        assert organisation.balance == 198, "11 photos at a tenth are 2 credits"
        late = charged(organisation.charge(usage(9, usage_type=WATERMARK), TENTH, NOON))
        assert (late.credits, late.settled) == (0, 7)
        assert organisation.balance == 198, "13 photos at a tenth are 2 credits"

    def test_photos_charged_by_a_settlement_are_dropped_after_some_time(
        self, organisation: Organisation
    ) -> None:
        settle(organisation, place(organisation, 10), 10)
        later = NOON + RUN_TOTAL_RETENTION + HOUR
        settle(organisation, place(organisation, 10, "run-89", at=later), 10, at=later)
        assert [run_id for run_id, _ in organisation.settlements] == ["run-89"]

    def test_a_run_without_a_user_is_settled_by_the_system(self, organisation: Organisation) -> None:
        settle(organisation, place(organisation, 10, user=None), 10)
        assert charged(organisation.collect_events()[1]).actor is None

    def test_only_an_open_hold_can_be_closed(self, organisation: Organisation) -> None:
        hold = place(organisation, 10)
        organisation.release_hold(hold.hold_id, request())
        with pytest.raises(HoldNotFound):
            organisation.release_hold(hold.hold_id, request())
        place(organisation, 10, "run-89")
        with pytest.raises(HoldNotFound):
            settle(organisation, hold, 10)


class TestReleaseAndExpiry:
    def test_a_release_frees_the_rest(self, organisation: Organisation) -> None:
        hold = place(organisation, 100)
        use(organisation, hold, 30)
        assert organisation.release_hold(hold.hold_id, request()).released == 70
        assert credits_of(organisation) == (170, 0, 170)

    def test_holds_expire_at_their_time(self, organisation: Organisation) -> None:
        place(organisation, 100)
        place(organisation, 50, "run-89", duration=2 * HOUR)
        organisation.expire_holds(request(NOON + HOUR - timedelta(microseconds=1)))
        assert organisation.on_hold == 150
        organisation.expire_holds(request(NOON + HOUR))
        assert credits_of(organisation) == (200, 50, 150)
        organisation.expire_holds(request(NOON + HOUR))
        assert [type(envelope.event) for envelope in organisation.collect_events()] == [
            HoldPlaced,
            HoldPlaced,
            HoldExpired,
        ]

    def test_due_holds_expire_before_any_other_decision(self, organisation: Organisation) -> None:
        place(organisation, 200)
        assert place(organisation, 200, "run-89", at=NOON + HOUR).size == 200
        organisation.charge(usage(1, occurred_at=NOON), WHOLE_CREDIT_MILLIONTHS, NOON + 2 * HOUR)
        assert credits_of(organisation) == (199, 0, 199)

    def test_usage_of_an_expired_hold_is_charged_from_available_credits(
        self, organisation: Organisation
    ) -> None:
        hold = place(organisation, 100)
        late = organisation.charge(usage(30, hold_id=hold.hold_id), WHOLE_CREDIT_MILLIONTHS, NOON + HOUR)
        assert (charged(late).from_hold, charged(late).beyond_hold) == (0, 30)
        assert credits_of(organisation) == (170, 0, 170)


class TestCrossings:
    def crossings(self, organisation: Organisation) -> list[Any]:
        marks = (CreditsExhausted, CreditsReplenished, BalanceWentLow)
        recorded = [envelope.event for envelope in organisation.collect_events()]
        return [(type(event), event.available) for event in recorded if isinstance(event, marks)]

    def test_credits_are_exhausted_and_replenished(self, organisation: Organisation) -> None:
        charge(organisation, 199)
        assert self.crossings(organisation) == []
        charge(organisation, 1)
        assert self.crossings(organisation) == [(CreditsExhausted, 0)]
        charge(organisation, 1)
        grant(organisation, 1)
        assert self.crossings(organisation) == []
        grant(organisation, 5)
        assert self.crossings(organisation) == [(CreditsReplenished, 5)]

    def test_holds_count(self, organisation: Organisation) -> None:
        hold = place(organisation, 200)
        assert self.crossings(organisation) == [(CreditsExhausted, 0)]
        use(organisation, hold, 200)
        assert self.crossings(organisation) == []
        place(opened(), 0)

    def test_an_expiry_replenishes_them(self, organisation: Organisation) -> None:
        place(organisation, 200)
        self.crossings(organisation)
        organisation.charge(usage(1), WHOLE_CREDIT_MILLIONTHS, NOON + HOUR)
        assert self.crossings(organisation) == [(CreditsReplenished, 199)]

    def test_down_and_up_in_one_decision_is_no_crossing(self, organisation: Organisation) -> None:
        charge(organisation, 200)
        grant(organisation, 1)
        assert self.crossings(organisation) == []

    def test_the_balance_goes_low_once(self, organisation: Organisation) -> None:
        organisation.set_low_balance_threshold(100, request())
        charge(organisation, 100)
        assert self.crossings(organisation) == []
        charge(organisation, 1)
        assert self.crossings(organisation) == [(BalanceWentLow, 99)]
        charge(organisation, 1)
        assert self.crossings(organisation) == []
        grant(organisation, 50)
        charge(organisation, 200)
        assert self.crossings(organisation) == [(CreditsExhausted, -52)], "exhausted is more than low"

    @pytest.mark.parametrize("threshold", [-1, CREDITS_MAX + 1])
    def test_the_threshold_is_in_bounds(self, organisation: Organisation, threshold: int) -> None:
        with pytest.raises(InvalidInput, match="threshold"):
            organisation.set_low_balance_threshold(threshold, request())

    def test_the_opening_is_no_crossing(self) -> None:
        organisation = opened(trial_credits=200)
        assert self.crossings(organisation) == []


class TestHistory:
    def test_a_replay_gives_the_same_organisation(self, organisation: Organisation) -> None:
        before = organisation.fork()
        organisation.set_low_balance_threshold(10, request())
        hold, other = place(organisation, 60), place(organisation, 60, "run-89")
        use(organisation, hold, 20)
        settle(organisation, hold, 50)
        use(organisation, hold, 10)
        use(organisation, other, 5, run_id="run-89")
        released = organisation.release_hold(other.hold_id, request())
        assert isinstance(released, HoldReleased)
        place(organisation, 7, "run-90")
        assert state_of(replayed(organisation, before)) == state_of(organisation)
        snapshot = organisation.snapshot()
        assert state_of(evolve(None, snapshot)) == state_of(organisation)

    def test_invariants_find_invalid_holds(self, organisation: Organisation) -> None:
        hold = place(organisation, 60)
        organisation.on_hold = 59
        with pytest.raises(InvariantViolation, match="on hold"):
            organisation.check_invariants()
        organisation.on_hold = 61
        organisation.holds["run-88"] = Hold(hold.hold_id, hold.request, 60, 61, hold.expires_at, {})
        with pytest.raises(InvariantViolation, match="bounds"):
            organisation.check_invariants()
