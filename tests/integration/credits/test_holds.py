"""Holds on a real PostgreSQL: concurrent writers, the usage path, and expiry."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import psycopg
import pytest

from consumers.usage.ingest import UsageIngest
from domain.credits import hold_commands
from domain.credits.command_result import CommandResult, HoldResult
from domain.credits.errors import HoldClosed, HoldConflict, HoldNotFound, InsufficientCredits
from domain.credits.events import HoldExpired, HoldPlaced, UsageCharged
from domain.credits.holds import HoldMode, HoldRequest
from domain.credits.ledger import Ledger
from domain.pricing.rate_card import RateCard, UsageType
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import InvalidInput
from domain.shared.event_store import IdempotencyKey
from infra.credits.charge_history import PostgresChargeHistory
from infra.credits.hold_expiry import HoldExpiryWorker
from infra.service.composition import credits_of
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.integration.consumers.ingest_environment import IngestEnvironment, Partition
from tests.unit.usage.records import KafkaRecord, usage_record

ORG = "org-1"
RATES = RateCard()


@pytest.fixture
def ingest_env(migrated_database: str, service_database: str) -> Iterator[IngestEnvironment]:
    ingest_env = IngestEnvironment(migrated_database, service_database)
    ingest_env.open(ORG, trial_credits=100)
    yield ingest_env
    ingest_env.close()


def request(ingest_env: IngestEnvironment, cause: str = "request-1") -> CommandContext:
    return CommandContext(ingest_env.now, None, cause)


def place(
    ingest_env: IngestEnvironment, run_id: str, credits_count: int, **options: Any
) -> RecordedResult[CommandResult]:
    mode = options.pop("mode", HoldMode.ALL_OR_NOTHING)
    usage_type = options.pop("usage_type", UsageType.PHOTO_PROCESSING)
    ledger: Ledger = options.pop("ledger", ingest_env.ledger)
    wanted = HoldRequest(run_id, credits_count, mode, usage_type, None, True, 1042, "Marathon", None)
    return credits_of(ledger).holds.place_hold(ORG, wanted, context=request(ingest_env), **options)


def hold_of(result: RecordedResult[CommandResult]) -> HoldResult:
    assert result.value.hold is not None
    return result.value.hold


def settle(
    ingest_env: IngestEnvironment, hold_id: str, photos: int, **options: Any
) -> RecordedResult[CommandResult]:
    return credits_of(ingest_env.ledger).holds.settle_hold(
        ORG, hold_id, photos, rates=RATES, context=request(ingest_env), **options
    )


def events(ingest_env: IngestEnvironment, kind: type[Any]) -> list[Any]:
    organisation = ingest_env.ledger.organisation(ORG)
    events = ingest_env.ledger.events.get(organisation.id)
    return [envelope.event for envelope in events if isinstance(envelope.event, kind)]  # type: ignore[attr-defined]


def feed(ingest: UsageIngest, partition: Partition, *records: KafkaRecord) -> None:
    partition.add(*records)
    ingest.submit(*partition.next())


class TestCommands:
    def test_a_run_from_its_hold_to_its_settlement(self, ingest_env: IngestEnvironment) -> None:
        placed = place(ingest_env, "run-88", 60)
        assert (placed.value.available, placed.value.balance) == (40, 100)
        settled = settle(ingest_env, hold_of(placed).hold_id, 50)
        assert (settled.value.available, settled.value.balance) == (50, 50)
        hold = hold_of(settled)
        assert (hold.status, hold.charged, hold.released, hold.remaining) == ("settled", 50, 10, 0)

    def test_a_repeated_request_gets_the_first_response(self, ingest_env: IngestEnvironment) -> None:
        idempotency_key = IdempotencyKey("holds", "key-1", b"asked")
        first = place(ingest_env, "run-88", 60, idempotency_key=idempotency_key)
        again = place(ingest_env, "run-88", 60, idempotency_key=idempotency_key)
        assert (again.value, again.repeated) == (first.value, True)
        assert place(ingest_env, "run-88", 60).value.hold == first.value.hold

    def test_a_run_has_at_most_one_hold(self, ingest_env: IngestEnvironment) -> None:
        hold_id = hold_of(place(ingest_env, "run-88", 60)).hold_id
        with pytest.raises(HoldConflict):
            place(ingest_env, "run-88", 61)
        released = credits_of(ingest_env.ledger).holds.release_hold(ORG, hold_id, context=request(ingest_env))
        assert (hold_of(released).status, hold_of(released).released) == ("released", 60)
        with pytest.raises(HoldClosed):
            place(ingest_env, "run-88", 60)
        with pytest.raises(HoldClosed):
            settle(ingest_env, hold_id, 1)
        assert ingest_env.ledger.organisation(ORG).available == 100

    @pytest.mark.parametrize("hold_id", ["hold-1", "hold-99", "hold-0", "hold--1", "hold-3 ", "x", "hold-٣"])
    def test_an_unknown_hold(self, ingest_env: IngestEnvironment, hold_id: str) -> None:
        with pytest.raises(HoldNotFound):
            credits_of(ingest_env.ledger).holds.release_hold(ORG, hold_id, context=request(ingest_env))

    def test_a_hold_of_credits_is_settled_with_the_type_of_its_messages(
        self, ingest_env: IngestEnvironment
    ) -> None:
        hold_id = hold_of(place(ingest_env, "run-88", 60, usage_type=None)).hold_id
        with pytest.raises(InvalidInput, match="usage type"):
            settle(ingest_env, hold_id, 10)
        partition = ingest_env.partition()
        rotated = {"data.usage_type": "ai_image_rotation", "data.hold_id": hold_id}
        ingest = ingest_env.ingest()
        feed(ingest, partition, usage_record("m-1", ORG, 5, rotated))
        ingest.flush()
        settle(ingest_env, hold_id, 10)
        assert [event.usage_type for event in events(ingest_env, UsageCharged)] == [
            UsageType.AI_IMAGE_ROTATION
        ] * 2
        other = hold_of(place(ingest_env, "run-89", 10, usage_type=None)).hold_id
        assert hold_of(settle(ingest_env, other, 10, usage_type=UsageType.STORE_ORIGINALS)).charged == 0

    def test_an_expired_hold_is_closed(self, ingest_env: IngestEnvironment) -> None:
        hold_id = hold_of(place(ingest_env, "run-88", 60, duration=timedelta(minutes=1))).hold_id
        ingest_env.now += timedelta(minutes=1)
        with pytest.raises(HoldClosed):
            settle(ingest_env, hold_id, 1)
        with pytest.raises(HoldClosed):
            place(ingest_env, "run-88", 60)

    def test_a_quote_changes_nothing(self, ingest_env: IngestEnvironment) -> None:
        place(ingest_env, "run-88", 30, duration=timedelta(minutes=1))
        version = ingest_env.ledger.organisation(ORG).version
        quote = hold_commands.quote(ingest_env.ledger, ORG, 110, at=ingest_env.now)
        assert [(draw.lot, draw.kind, draw.credits) for draw in quote.draws] == [(2, "free", 100)]
        assert (quote.overdraft, quote.available, quote.available_after) == (10, 70, -40)
        assert (
            hold_commands.quote(ingest_env.ledger, ORG, 0, at=ingest_env.now + timedelta(minutes=1)).available
            == 100
        )
        assert ingest_env.ledger.organisation(ORG).version == version

    def test_a_threshold(self, ingest_env: IngestEnvironment) -> None:
        result = credits_of(ingest_env.ledger).commands.set_low_balance_threshold(
            ORG, 50, context=request(ingest_env)
        )
        assert result.value.balance == 100
        assert ingest_env.ledger.organisation(ORG).low_balance_threshold == 50


def test_six_holds_at_once_never_exceed_the_balance(ingest_env: IngestEnvironment) -> None:
    """Together they request six times the balance; each of them alone would get all of it."""
    ledgers = [ingest_env.open_ledger() for _ in range(6)]

    def try_to_place(number: int) -> int:
        mode = HoldMode.UP_TO if number % 2 else HoldMode.ALL_OR_NOTHING
        try:
            return hold_of(place(ingest_env, f"run-{number}", 70, mode=mode, ledger=ledgers[number])).credits
        except InsufficientCredits:
            return 0

    with ThreadPoolExecutor(6) as threads:
        granted = list(threads.map(try_to_place, range(6)))
    organisation = ingest_env.ledger.organisation(ORG)
    organisation.check_invariants()
    assert sum(granted) == organisation.on_hold <= 100
    assert max(granted) == 70


class TestUsagePath:
    def test_usage_draws_on_the_hold_and_late_messages_are_not_charged_twice(
        self, ingest_env: IngestEnvironment
    ) -> None:
        hold_id = hold_of(place(ingest_env, "run-88", 60)).hold_id
        partition, ingest = ingest_env.partition(), ingest_env.ingest()
        named = {"data.hold_id": hold_id}
        feed(ingest, partition, usage_record("m-1", ORG, 20, named))
        ingest.flush()
        settle(ingest_env, hold_id, 50)
        feed(ingest, partition, usage_record("m-2", ORG, 25, named), usage_record("m-3", ORG, 10, named))
        feed(ingest, partition, usage_record("m-2", ORG, 25, named))
        ingest.flush()
        charges = events(ingest_env, UsageCharged)
        assert [(event.photos, event.credits, event.settled, event.from_hold) for event in charges] == [
            (20, 20, 0, 20),
            (30, 30, 0, 30),
            (25, 0, 25, 0),
            (10, 5, 5, 0),
        ]
        assert ingest_env.ledger.organisation(ORG).balance == 45
        assert ingest.counts.repeats == 1

    def test_a_batch_records_expired_holds_and_crossings(self, ingest_env: IngestEnvironment) -> None:
        place(ingest_env, "run-89", 60, duration=timedelta(minutes=1))
        ingest_env.now += timedelta(minutes=2)
        partition, ingest = ingest_env.partition(), ingest_env.ingest()
        feed(ingest, partition, usage_record("m-1", ORG, 99), usage_record("m-2", ORG, 1))
        ingest.flush()
        topics = ingest_env.connection.execute(
            "SELECT topic FROM ledger.events ORDER BY notification_id OFFSET 3"
        ).fetchall()
        assert [topic for (topic,) in topics] == [
            *("hold_expired.v1", "usage_charged.v1", "usage_charged.v1", "credits_exhausted.v1"),
        ]
        assert ingest_env.ingest()._store.load([ingest_env.ledger.organisation(ORG).id])
        assert ingest.counts.charges == 2

    @pytest.mark.parametrize("projected", ["nothing", "a part", "all"])
    def test_usage_before_the_hold_is_not_charged_again(
        self, ingest_env: IngestEnvironment, projected: str
    ) -> None:
        ingest_env.grant(ORG, 1_000)
        partition, ingest = ingest_env.partition(), ingest_env.ingest()
        rotated = {"data.usage_type": "ai_image_rotation"}
        other = {"data.run_id": 'run-"8'}
        runner = ProjectionRunner(ingest_env.service, ALL_PROJECTIONS)
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
        placed = place(ingest_env, "run-88", 300)
        assert events(ingest_env, HoldPlaced)[0].reported == {
            UsageType.PHOTO_PROCESSING: 100,
            UsageType.AI_IMAGE_ROTATION: 7,
        }
        assert hold_of(place(ingest_env, 'run-"8', 10)).credits == 10
        assert hold_of(place(ingest_env, "run-89", 10)).credits == 10
        assert [event.reported for event in events(ingest_env, HoldPlaced)[1:]] == [
            {UsageType.PHOTO_PROCESSING: 9},
            {},
        ]
        balance = ingest_env.ledger.organisation(ORG).balance
        assert hold_of(settle(ingest_env, hold_of(placed).hold_id, 300)).charged == 200
        assert ingest_env.ledger.organisation(ORG).balance == balance - 200

    def test_a_statement_behind_the_balance(self, ingest_env: IngestEnvironment) -> None:
        partition, ingest = ingest_env.partition(), ingest_env.ingest()
        feed(ingest, partition, usage_record("m-1", ORG, 10))
        ingest.flush()
        ProjectionRunner(ingest_env.service, ALL_PROJECTIONS).catch_up()
        ingest_env.connection.execute("TRUNCATE projections.transactions")
        ingest_env.connection.execute(
            "UPDATE projections.positions SET position = 0 WHERE projection = 'statement'"
        )
        history = PostgresChargeHistory(ingest_env.ledger)
        stream = ingest_env.ledger.organisation(ORG).id
        assert history.photos_reported(stream, "run-88", 3) == {UsageType.PHOTO_PROCESSING: 10}
        assert history.photos_reported(stream, "run-88", 2) == {}


class TestExpiry:
    def hold_expiry_worker(self, ingest_env: IngestEnvironment) -> HoldExpiryWorker:
        return HoldExpiryWorker(
            credits_of(ingest_env.ledger).holds, ingest_env.service, lambda: ingest_env.now
        )

    def expire_due(self, ingest_env: IngestEnvironment) -> int:
        with psycopg.connect(ingest_env.service, autocommit=True) as connection:
            return self.hold_expiry_worker(ingest_env).expire_due(connection)

    def test_only_due_holds_expire_and_only_once(self, ingest_env: IngestEnvironment) -> None:
        place(ingest_env, "run-88", 30, duration=timedelta(minutes=1))
        place(ingest_env, "run-89", 30, duration=timedelta(minutes=3))
        runner = ProjectionRunner(ingest_env.service, ALL_PROJECTIONS)
        with psycopg.connect(ingest_env.service, autocommit=True) as connection:
            runner.catch_up()
            assert self.hold_expiry_worker(ingest_env).expire_due(connection) == 0
            ingest_env.now += timedelta(minutes=2)
            with ThreadPoolExecutor(
                2
            ) as threads:  # two processes, neither of which sees the other's work yet
                due = threads.map(self.expire_due, [ingest_env] * 2)
                assert list(due) == [1, 1]
            runner.catch_up()
            assert self.hold_expiry_worker(ingest_env).expire_due(connection) == 0
        assert [event.run_id for event in events(ingest_env, HoldExpired)] == ["run-88"]
        assert ingest_env.ledger.organisation(ORG).available == 70

    def test_it_continues_after_a_restart_of_the_database(
        self, ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("infra.credits.hold_expiry.EVERY_S", 0.01)
        stop = Event()
        hold_expiry_worker = self.hold_expiry_worker(ingest_env)
        place(ingest_env, "run-88", 30, duration=timedelta(minutes=1))
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(hold_expiry_worker.run, stop)
            ingest_env.terminate()
            ProjectionRunner(ingest_env.service, ALL_PROJECTIONS).catch_up()
            ingest_env.now += timedelta(minutes=2)
            for _ in range(500):
                if events(ingest_env, HoldExpired):
                    break
                stop.wait(0.01)
            stop.set()
            running.result(10)
        assert len(events(ingest_env, HoldExpired)) == 1
