"""Holds on a real PostgreSQL: from many writers at once, through the usage path, and over time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import psycopg
import pytest

from consumers.usage import UsageIngest
from domain.errors import HoldClosed, HoldConflict, HoldUnknown, InsufficientCredits, InvalidInput
from domain.facts import HoldExpired, HoldPlaced, Request, UsageCharged
from domain.holds import HoldMode, HoldRequest
from domain.ledger import HoldStanding, Ledger, Recorded
from domain.ports import Once
from domain.rate_card import RateCard, UsageType
from domain.recording import Result
from infra.lapse import HoldLapser
from projections.runner import ProjectionRunner
from tests.integration.consumers.lab import Lab, Partition
from tests.unit.consumers.records import KafkaRecord, usage_record

ORG = "org-1"
RATES = RateCard()


@pytest.fixture
def lab(migrated_database: str, service_database: str) -> Iterator[Lab]:
    lab = Lab(migrated_database, service_database)
    lab.open(ORG, trial_credits=100)
    yield lab
    lab.close()


def request(lab: Lab, cause: str = "request-1") -> Request:
    return Request(lab.now, None, cause)


def place(lab: Lab, run_id: str, credits_count: int, **options: Any) -> Result[Recorded]:
    mode = options.pop("mode", HoldMode.ALL_OR_NOTHING)
    usage_type = options.pop("usage_type", UsageType.PHOTO_PROCESSING)
    ledger: Ledger = options.pop("ledger", lab.ledger)
    wanted = HoldRequest(run_id, credits_count, mode, usage_type, None, True, 1042, "Marathon", None)
    return ledger.place_hold(ORG, wanted, request=request(lab), **options)


def hold_of(result: Result[Recorded]) -> HoldStanding:
    assert result.recorded.hold is not None
    return result.recorded.hold


def settle(lab: Lab, hold_id: str, photos: int, **options: Any) -> Result[Recorded]:
    return lab.ledger.settle_hold(ORG, hold_id, photos, rates=RATES, request=request(lab), **options)


def facts(lab: Lab, kind: type[Any]) -> list[Any]:
    organisation = lab.ledger.organisation(ORG)
    events = lab.ledger.events.get(organisation.id)
    return [event.fact for event in events if isinstance(event.fact, kind)]  # type: ignore[attr-defined]


def feed(ingest: UsageIngest, partition: Partition, *records: KafkaRecord) -> None:
    partition.add(*records)
    ingest.submit(*partition.next())


class TestCommands:
    def test_a_run_from_its_hold_to_its_settlement(self, lab: Lab) -> None:
        placed = place(lab, "run-88", 60)
        assert (placed.recorded.available, placed.recorded.balance) == (40, 100)
        settled = settle(lab, hold_of(placed).hold_id, 50)
        assert (settled.recorded.available, settled.recorded.balance) == (50, 50)
        hold = hold_of(settled)
        assert (hold.status, hold.charged, hold.released, hold.remaining) == ("settled", 50, 10, 0)

    def test_a_request_sent_again_gets_the_first_answer(self, lab: Lab) -> None:
        once = Once("holds", "key-1", b"asked")
        first = place(lab, "run-88", 60, once=once)
        again = place(lab, "run-88", 60, once=once)
        assert (again.recorded, again.repeated) == (first.recorded, True)
        assert place(lab, "run-88", 60).recorded.hold == first.recorded.hold

    def test_a_run_has_one_hold_in_its_life(self, lab: Lab) -> None:
        hold_id = hold_of(place(lab, "run-88", 60)).hold_id
        with pytest.raises(HoldConflict):
            place(lab, "run-88", 61)
        released = lab.ledger.release_hold(ORG, hold_id, request=request(lab))
        assert (hold_of(released).status, hold_of(released).released) == ("released", 60)
        with pytest.raises(HoldClosed):
            place(lab, "run-88", 60)
        with pytest.raises(HoldClosed):
            settle(lab, hold_id, 1)
        assert lab.ledger.organisation(ORG).available == 100

    @pytest.mark.parametrize("hold_id", ["hold-1", "hold-99", "hold-0", "hold--1", "hold-3 ", "x", "hold-٣"])
    def test_what_was_never_held_is_unknown(self, lab: Lab, hold_id: str) -> None:
        with pytest.raises(HoldUnknown):
            lab.ledger.release_hold(ORG, hold_id, request=request(lab))

    def test_a_hold_for_credits_alone_is_settled_for_what_its_messages_were(self, lab: Lab) -> None:
        hold_id = hold_of(place(lab, "run-88", 60, usage_type=None)).hold_id
        with pytest.raises(InvalidInput, match="usage type"):
            settle(lab, hold_id, 10)
        partition = lab.partition()
        rotated = {"data.usage_type": "ai_image_rotation", "data.hold_id": hold_id}
        ingest = lab.ingest()
        feed(ingest, partition, usage_record("m-1", ORG, 5, rotated))
        ingest.flush()
        settle(lab, hold_id, 10)
        assert [fact.usage_type for fact in facts(lab, UsageCharged)] == [UsageType.AI_IMAGE_ROTATION] * 2
        other = hold_of(place(lab, "run-89", 10, usage_type=None)).hold_id
        assert hold_of(settle(lab, other, 10, usage_type=UsageType.STORE_ORIGINALS)).charged == 0

    def test_a_lapsed_hold_is_closed(self, lab: Lab) -> None:
        hold_id = hold_of(place(lab, "run-88", 60, lasts=timedelta(minutes=1))).hold_id
        lab.now += timedelta(minutes=1)
        with pytest.raises(HoldClosed):
            settle(lab, hold_id, 1)
        with pytest.raises(HoldClosed):
            place(lab, "run-88", 60)

    def test_a_quote_changes_nothing(self, lab: Lab) -> None:
        place(lab, "run-88", 30, lasts=timedelta(minutes=1))
        version = lab.ledger.organisation(ORG).version
        quote = lab.ledger.quote(ORG, 110, at=lab.now)
        assert [(draw.lot, draw.kind, draw.credits) for draw in quote.draws] == [(2, "free", 100)]
        assert (quote.overdraft, quote.available, quote.available_after) == (10, 70, -40)
        assert lab.ledger.quote(ORG, 0, at=lab.now + timedelta(minutes=1)).available == 100
        assert lab.ledger.organisation(ORG).version == version

    def test_a_threshold(self, lab: Lab) -> None:
        result = lab.ledger.set_low_balance_threshold(ORG, 50, request=request(lab))
        assert result.recorded.balance == 100
        assert lab.ledger.organisation(ORG).low_balance_threshold == 50


def test_six_holds_at_once_never_exceed_the_balance(lab: Lab) -> None:
    """Together they ask for six times what is there: a peer granted all of it."""
    ledgers = [lab.open_ledger() for _ in range(6)]

    def try_to_place(number: int) -> int:
        mode = HoldMode.UP_TO if number % 2 else HoldMode.ALL_OR_NOTHING
        try:
            return hold_of(place(lab, f"run-{number}", 70, mode=mode, ledger=ledgers[number])).credits
        except InsufficientCredits:
            return 0

    with ThreadPoolExecutor(6) as threads:
        granted = list(threads.map(try_to_place, range(6)))
    organisation = lab.ledger.organisation(ORG)
    organisation.check_invariants()
    assert sum(granted) == organisation.on_hold <= 100
    assert max(granted) == 70


class TestUsagePath:
    def test_usage_draws_on_the_hold_and_late_messages_are_not_charged_twice(self, lab: Lab) -> None:
        hold_id = hold_of(place(lab, "run-88", 60)).hold_id
        partition, ingest = lab.partition(), lab.ingest()
        named = {"data.hold_id": hold_id}
        feed(ingest, partition, usage_record("m-1", ORG, 20, named))
        ingest.flush()
        settle(lab, hold_id, 50)
        feed(ingest, partition, usage_record("m-2", ORG, 25, named), usage_record("m-3", ORG, 10, named))
        feed(ingest, partition, usage_record("m-2", ORG, 25, named))
        ingest.flush()
        charges = facts(lab, UsageCharged)
        assert [(fact.photos, fact.credits, fact.settled, fact.from_hold) for fact in charges] == [
            (20, 20, 0, 20),
            (30, 30, 0, 30),
            (25, 0, 25, 0),
            (10, 5, 5, 0),
        ]
        assert lab.ledger.organisation(ORG).balance == 45
        assert ingest.counts.repeats == 1

    def test_a_batch_records_what_lapsed_and_what_it_crossed(self, lab: Lab) -> None:
        place(lab, "run-89", 60, lasts=timedelta(minutes=1))
        lab.now += timedelta(minutes=2)
        partition, ingest = lab.partition(), lab.ingest()
        feed(ingest, partition, usage_record("m-1", ORG, 99), usage_record("m-2", ORG, 1))
        ingest.flush()
        topics = lab.connection.execute(
            "SELECT topic FROM ledger.events ORDER BY notification_id OFFSET 3"
        ).fetchall()
        assert [topic for (topic,) in topics] == [
            *("hold_expired.v1", "usage_charged.v1", "usage_charged.v1", "credits_exhausted.v1"),
        ]
        assert lab.ingest()._store.load([lab.ledger.organisation(ORG).id])
        assert ingest.counts.charges == 2

    @pytest.mark.parametrize("projected", ["nothing", "a part", "all"])
    def test_what_was_reported_before_the_hold_is_not_charged_again(self, lab: Lab, projected: str) -> None:
        lab.grant(ORG, 1_000)
        partition, ingest = lab.partition(), lab.ingest()
        rotated = {"data.usage_type": "ai_image_rotation"}
        other = {"data.run_id": 'run-"8'}
        runner = ProjectionRunner(lab.service)
        feed(ingest, partition, usage_record("m-1", ORG, 60), usage_record("m-2", ORG, 9, other))
        feed(ingest, partition, usage_record("m-3", ORG, 7, rotated))
        feed(ingest, partition, usage_record("m-6", ORG, 11, {"data.ai_search": False}))  # free
        ingest.flush()
        if projected == "a part":
            runner.catch_up()
        feed(ingest, partition, usage_record("m-4", ORG, 500, {"data.run_id": "run-8"}))
        feed(ingest, partition, usage_record("m-5", ORG, 40), usage_record("m-1", ORG, 60))
        ingest.flush()
        if projected == "all":
            runner.catch_up()
        placed = place(lab, "run-88", 300)
        assert facts(lab, HoldPlaced)[0].reported == {
            UsageType.PHOTO_PROCESSING: 100,
            UsageType.AI_IMAGE_ROTATION: 7,
        }
        assert hold_of(place(lab, 'run-"8', 10)).credits == 10
        assert hold_of(place(lab, "run-89", 10)).credits == 10
        assert [fact.reported for fact in facts(lab, HoldPlaced)[1:]] == [{UsageType.PHOTO_PROCESSING: 9}, {}]
        balance = lab.ledger.organisation(ORG).balance
        assert hold_of(settle(lab, hold_of(placed).hold_id, 300)).charged == 200
        assert lab.ledger.organisation(ORG).balance == balance - 200

    def test_a_statement_that_is_behind_the_balance_hides_nothing(self, lab: Lab) -> None:
        partition, ingest = lab.partition(), lab.ingest()
        feed(ingest, partition, usage_record("m-1", ORG, 10))
        ingest.flush()
        ProjectionRunner(lab.service).catch_up()
        lab.connection.execute("TRUNCATE projections.transactions")
        lab.connection.execute("UPDATE projections.positions SET position = 0 WHERE projection = 'statement'")
        store: Any = lab.ledger.events
        stream = lab.ledger.organisation(ORG).id
        assert store.photos_reported(stream, "run-88", 3) == {UsageType.PHOTO_PROCESSING: 10}
        assert store.photos_reported(stream, "run-88", 2) == {}


class TestLapsing:
    def lapser(self, lab: Lab) -> HoldLapser:
        return HoldLapser(lab.ledger, lab.service, lambda: lab.now)

    def lapse_due(self, lab: Lab) -> int:
        with psycopg.connect(lab.service, autocommit=True) as connection:
            return self.lapser(lab).lapse_due(connection)

    def test_what_is_due_lapses_once_and_nothing_else(self, lab: Lab) -> None:
        place(lab, "run-88", 30, lasts=timedelta(minutes=1))
        place(lab, "run-89", 30, lasts=timedelta(minutes=3))
        runner = ProjectionRunner(lab.service)
        with psycopg.connect(lab.service, autocommit=True) as connection:
            runner.catch_up()
            assert self.lapser(lab).lapse_due(connection) == 0
            lab.now += timedelta(minutes=2)
            with ThreadPoolExecutor(2) as threads:  # two processes, and neither sees the other's work yet
                due = threads.map(self.lapse_due, [lab] * 2)
                assert list(due) == [1, 1]
            runner.catch_up()
            assert self.lapser(lab).lapse_due(connection) == 0
        assert [fact.run_id for fact in facts(lab, HoldExpired)] == ["run-88"]
        assert lab.ledger.organisation(ORG).available == 70

    def test_it_goes_on_when_the_database_comes_back(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("infra.lapse.EVERY_S", 0.01)
        stop = Event()
        lapser = self.lapser(lab)
        place(lab, "run-88", 30, lasts=timedelta(minutes=1))
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(lapser.run, stop)
            lab.terminate()
            ProjectionRunner(lab.service).catch_up()
            lab.now += timedelta(minutes=2)
            for _ in range(500):
                if facts(lab, HoldExpired):
                    break
                stop.wait(0.01)
            stop.set()
            running.result(10)
        assert len(facts(lab, HoldExpired)) == 1
