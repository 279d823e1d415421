"""Simulated traffic: reproducible by seed, realistic, and valid for the consumer."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from consumers.usage.wire_format import InvalidUsageMessage, decode_usage
from infra.simulator.credit_checks import HoldReference
from infra.simulator.demo import DEMO_ORGANISATIONS, DEMO_PEOPLE
from infra.simulator.options import MANY_FAULTS, NO_FAULTS, FaultRates, SimulatorOptions
from infra.simulator.photo_events import EVENT_PHOTOS_MAX, EVENT_PHOTOS_MIN, Month, events_of
from infra.simulator.traffic import Traffic
from tests.unit.simulator.simulations import (
    CAMPUS,
    LACE,
    NOW,
    STRIDE,
    charged,
    history,
    live,
    options,
    ticking,
)


def test_a_seed_makes_the_same_traffic_again() -> None:
    assert history(fault_rates=MANY_FAULTS) == history(fault_rates=MANY_FAULTS)
    assert live(500, fault_rates=MANY_FAULTS) == live(500, fault_rates=MANY_FAULTS)
    assert history(seed=2) != history(seed=3)


def test_another_process_creates_other_ids() -> None:
    ours = {(record.usage.message_id, record.usage.run_id) for record in history(process="a")}
    theirs = {(record.usage.message_id, record.usage.run_id) for record in history(process="b")}
    assert {ids[0] for ids in ours}.isdisjoint(ids[0] for ids in theirs)
    assert {ids[1] for ids in ours}.isdisjoint(ids[1] for ids in theirs)


def test_ids_are_unique_uuid7_of_the_moment() -> None:
    records = history(fault_rates=NO_FAULTS) + live(300, fault_rates=NO_FAULTS, process="t1")
    for record in records:
        number = UUID(record.usage.message_id)
        assert (number.version, number.variant) == (7, "specified in RFC 4122")
        assert number.int >> 80 == int(record.usage.occurred_at.timestamp() * 1_000)
    assert len({record.usage.message_id for record in records}) == len(records)


def test_the_consumer_accepts_every_message_but_the_malformed() -> None:
    traffic = Traffic(options(fault_rates=MANY_FAULTS))
    records = [*traffic.history(NOW), *islice(traffic.live(ticking()), 2_000)]
    for record in records:
        if record.malformed_kind is not None:
            with pytest.raises(InvalidUsageMessage):
                decode_usage(record.key, record.value, record.headers)
            continue
        report = decode_usage(record.key, record.value, record.headers)
        usage = record.usage
        assert report.organisation_id == usage.organisation_id
        assert (report.source, report.message_id) == (usage.source, usage.message_id)
        assert report.charge_fingerprint == (
            usage.run_id,
            usage.usage_type,
            usage.photos,
            usage.ai_search,
            usage.event_id,
        )
        user_id = None if report.usage.user is None else report.usage.user.id
        assert (report.usage.photo_event.name, user_id) == (usage.event_name, usage.user_id)
        assert abs(report.occurred_at - usage.occurred_at) < timedelta(milliseconds=1)
    assert {record.malformed_kind for record in records} == {None, "not_json", "missing_field", "foreign_key"}


def test_some_messages_are_binary_and_most_are_structured() -> None:
    kinds = Counter(dict(record.headers)["content-type"] for record in history())
    assert 0.1 < kinds[b"application/json"] / kinds.total() < 0.3
    assert set(kinds) == {b"application/json", b"application/cloudevents+json"}


def test_no_faults_without_fault_injection() -> None:
    records = history(fault_rates=NO_FAULTS)
    times = [record.usage.occurred_at for record in records]
    assert times == sorted(times)
    assert not any(record.malformed_kind or record.waits for record in records)


def test_usual_faults_are_repeats_and_reorderings_only() -> None:
    records = history(fault_rates=FaultRates())
    bodies: dict[str, set[bytes]] = {}
    for record in records:
        bodies.setdefault(record.usage.message_id, set()).add(record.value)
    assert len(bodies) < len(records)
    assert all(len(values) == 1 for values in bodies.values())
    assert not any(record.malformed_kind for record in records)
    times = [record.usage.occurred_at for record in records]
    assert times != sorted(times)


def test_a_conflict_follows_its_original_with_other_values() -> None:
    records = history(fault_rates=FaultRates(repeated=0, conflicting=0.1))
    first = {}
    conflicts = 0
    for record in records:
        usage = first.setdefault(record.usage.message_id, record.usage)
        if record.waits:
            conflicts += 1
            assert usage.photos != record.usage.photos
    assert conflicts > 10


@pytest.mark.parametrize(
    "now",
    [
        NOW,
        datetime(2026, 7, 1, 4, 0, 1, tzinfo=UTC),  # a second into July in New York
        datetime(2026, 10, 31, 18, 30, tzinfo=UTC),  # midnight, 1 November, in Kolkata
        datetime(2027, 1, 1, 0, 0, tzinfo=UTC),
        datetime(2026, 3, 30, 23, 30, tzinfo=UTC),
    ],
)
def test_history_fills_four_months_in_each_zone(now: datetime) -> None:
    records = history(now, fault_rates=NO_FAULTS)
    assert all(record.usage.occurred_at <= now for record in records)
    for organisation in (STRIDE, LACE, CAMPUS):
        zone = ZoneInfo(organisation.time_zone)
        running = Month.of(now.astimezone(zone).date())
        of_organisation = [r for r in records if r.usage.organisation_id == organisation.id]
        months = Counter(
            Month.of(r.usage.occurred_at.astimezone(zone).date()) for r in charged(of_organisation)
        )
        assert set(months) == {running.earlier(back) for back in range(4)}
        runs = len({r.usage.run_id for r in of_organisation})
        assert (40 if organisation is CAMPUS else 120) < runs < 400
    assert 500 < len(records) < 3_000


def test_usage_grows() -> None:
    now = datetime(2026, 7, 1, 6, tzinfo=UTC)
    for seed in range(5):
        photos: Counter[int] = Counter()
        for record in charged(history(now, seed=seed, fault_rates=NO_FAULTS)):
            photos[record.usage.occurred_at.month] += record.usage.photos
        assert photos[6] > photos[4]


def test_weekends_are_busier() -> None:
    for organisation in (STRIDE, LACE, CAMPUS):
        days: Counter[bool] = Counter()
        for seed in range(5):
            for record in history(organisations=(organisation,), seed=seed, fault_rates=NO_FAULTS):
                if record.usage.usage_type == "photo_processing":
                    local = record.usage.occurred_at.astimezone(ZoneInfo(organisation.time_zone))
                    days[local.weekday() >= 5] += record.usage.photos
        assert days[True] / 2 > 2 * days[False] / 5


def test_photo_events_have_stable_ids_and_realistic_sizes() -> None:
    month = Month(2026, 5)
    ids: set[int] = set()
    for organisation in (STRIDE, LACE, CAMPUS):
        events = events_of(organisation, month, 1, 0)
        seen_later = events_of(organisation, month, 1, 2)
        assert [(e.id, e.name, e.day) for e in events] == [(e.id, e.name, e.day) for e in seen_later]
        assert all(EVENT_PHOTOS_MIN <= photo_event.photos <= EVENT_PHOTOS_MAX for photo_event in events)
        assert all(photo_event.name.endswith("2026") for photo_event in events)
        ids |= {photo_event.id for photo_event in events}
        ids |= {photo_event.id for photo_event in events_of(organisation, Month(2026, 6), 1, 0)}
        assert len({photo_event.name for photo_event in events}) == len(events)
    assert len(ids) == sum(
        len(events_of(organisation, Month(2026, number), 1, 0))
        for organisation in (STRIDE, LACE, CAMPUS)
        for number in (5, 6)
    )


def test_runs_come_in_messages_of_five_to_five_hundred_photos() -> None:
    records = history(fault_rates=NO_FAULTS, organisations=(STRIDE, LACE))
    small = [record for record in records if not 5 <= record.usage.photos <= 500]
    assert len(small) < len(records) / 50  # a run of fewer photos has one message
    assert all(1 <= record.usage.photos <= 500 for record in small)
    assert max(Counter(record.usage.run_id for record in records).values()) > 5
    assert {record.usage.usage_type for record in records} == {
        "photo_processing",
        "ai_image_rotation",
        "watermark_reprocess",
        "store_originals",
    }
    assert {None} < {record.usage.user_id for record in records}
    assert {record.usage.user_id for record in records} - {None} <= DEMO_PEOPLE.keys(), (
        "every user has a name"
    )
    assert {True, False} == {record.usage.ai_search for record in records}


def test_live_messages_have_the_current_time_except_in_late_runs() -> None:
    records = live(2_000, fault_rates=FaultRates(repeated=0, out_of_order=0, late=0.1))
    ages = [
        NOW + number * timedelta(seconds=1) - record.usage.occurred_at
        for number, record in enumerate(records)
    ]
    late = [age for age in ages if age]
    assert 50 < len(late) < 600
    assert min(late) > timedelta(days=1)
    assert max(late) > timedelta(days=14)
    assert max(late) < timedelta(days=95)


def test_live_traffic_uses_only_available_credits() -> None:
    traffic = Traffic(options(organisations=(CAMPUS,), fault_rates=NO_FAULTS))
    records = [*traffic.history(NOW), *islice(traffic.live(ticking()), 300)]
    assert sum(record.usage.photos for record in charged(records)) == 200
    assert not records[-1].usage.ai_search


class LimitedCreditChecks:
    """Each organisation has a number of credits. The first run holds all of them; the traffic ends when all
    are used.
    """

    def __init__(self, credits_of: dict[str, int]) -> None:
        self.left = dict(credits_of)
        self.held: dict[str, int] = {}
        self.settled: dict[str, int] = {}

    def open(self) -> None:
        pass

    def may_run(self, organisation_id: str) -> bool:
        return self.left[organisation_id] > 0

    def hold(
        self, organisation_id: str, run_id: str, usage_type: str, photos: int, *, ai_search: bool
    ) -> HoldReference:
        held = min(photos, self.left[organisation_id])
        self.left[organisation_id] -= held
        self.held[run_id] = held
        return HoldReference(run_id, held)

    def settle(self, organisation_id: str, hold_id: str, photos: int) -> None:
        self.settled[hold_id] = photos

    def wait(self) -> bool:
        return not any(self.left.values())


def test_live_runs_place_holds_and_pause_without_credits() -> None:
    credit_checks = LimitedCreditChecks({STRIDE.id: 0, LACE.id: 5_000, CAMPUS.id: 300})
    records = live(100_000, credit_checks=credit_checks, fault_rates=NO_FAULTS)
    reported = Counter[str]()
    for record in records:
        assert record.usage.hold_id == record.usage.run_id
        reported[record.usage.run_id] += record.usage.photos
    assert {record.usage.organisation_id for record in records} == {LACE.id, CAMPUS.id}
    whole = {record.usage.run_id for record in records if record.usage.usage_type == "photo_processing"}
    assert all(reported[run_id] <= credit_checks.held[run_id] for run_id in whole)
    assert credit_checks.settled.items() <= reported.items()
    assert len(credit_checks.settled) > 5


@pytest.mark.parametrize("seed", range(3))
def test_the_demo_has_credits_throughout_its_history(seed: int) -> None:
    for day in range(0, 365, 11):
        now = NOW + timedelta(days=day, hours=day % 24)
        for demo in DEMO_ORGANISATIONS:
            moves = [(demo.opened_at(now), 0, 200)]
            moves += [(a.at(demo.time_zone, now), 0, a.credits) for a in demo.additions]
            asked = SimulatorOptions((demo.traffic,), seed=seed, fault_rates=NO_FAULTS)
            used = 0
            for record in Traffic(asked).history(now):
                usage = record.usage
                tenths = {"store_originals": 0, "watermark_reprocess": 1}.get(usage.usage_type, 10)
                cost = -(-usage.photos * tenths // 10) if usage.ai_search else 0
                moves.append((usage.occurred_at, 1, -cost))
                used += cost
            balance = 0
            for _, _, change in sorted(moves):
                balance += change
                assert balance > 0
            assert demo.traffic.credits_max is not None
            assert demo.traffic.credits_max - used == balance
            assert balance == 12 if demo.id == "campus-clicks" else balance > 20_000


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="share"):
        FaultRates(late=2)
    with pytest.raises(ValueError, match="organisation"):
        SimulatorOptions(())
    with pytest.raises(ValueError, match="live_per_second"):
        options(live_per_second=-1)
    with pytest.raises(ValueError, match="live_chunk_photos_max"):
        options(live_chunk_photos_max=5_000)
