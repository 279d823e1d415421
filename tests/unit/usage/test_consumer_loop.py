"""The consumer's loop in cases that a real broker cannot produce on demand: gaps, losses, replaced logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any, cast

import pytest
from kafka.errors import KafkaConnectionError

from consumers.usage.consumer import UsageConsumer
from consumers.usage.ingest import UsageIngest
from consumers.usage.partitions import Partitions
from consumers.usage.positions import DataLost, StoredPosition, record_digest
from domain.shared.errors import CheckpointConflict, DeadLettersUnavailable, StoreUnavailable
from tests.unit.usage.fake_kafka import TOPIC, FakeClient, FakeKafka, FakeLedger, Log


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.usage.consumer.HOUSEKEEPING_EVERY_S", 0.0)
    monkeypatch.setattr("consumers.usage.consumer.OFFSETS_EVERY_S", 0.0)
    monkeypatch.setattr("consumers.usage.consumer.BACKOFF_INITIAL_S", 0.001)
    monkeypatch.setattr("consumers.usage.partitions.PROOF_TIMEOUT_S", 0.05)
    monkeypatch.setattr("consumers.usage.partitions.LEADER_RETRY_S", 0.0)


class Run:
    """A consumer that runs until there are no more records and no more scripted actions."""

    def __init__(self, log: Log, ledger: FakeLedger | None = None, *happens: Callable[[Run], None]) -> None:
        self.log = log
        self.ledger = ledger or FakeLedger()
        stop = Event()
        self.kafka = FakeKafka(log, stop)
        self.kafka.when_idle += [lambda _, act=act: act(self) for act in happens]  # type: ignore[misc]
        self.consumer = UsageConsumer(self.kafka, self.ledger, cast("UsageIngest", self.ledger), TOPIC)
        self.consumer.run(stop)

    @property
    def client(self) -> FakeClient:
        return self.kafka.clients[-1]


def offsets(partition: int, *numbers: int) -> list[tuple[int, int]]:
    return [(partition, number) for number in numbers]


def nothing(_: Run) -> None:
    """Do nothing."""


def test_new_partitions_are_read_from_their_beginning() -> None:
    log = Log("id-1", 3, 0, 2)
    log.forget_before(0, 1)
    lag: dict[int, int] = {}

    def note_lag(run: Run) -> None:
        lag.update(run.consumer.lag)

    run = Run(log, None, note_lag)
    assert run.ledger.charged == [(0, 1), (0, 2), (2, 0), (2, 1)]
    assert run.ledger.stored == {
        0: StoredPosition("id-1", 3, record_digest(log.records[0][-1])),
        1: StoredPosition("id-1", 0, None),
        2: StoredPosition("id-1", 2, record_digest(log.records[2][-1])),
    }
    assert lag == {0: 0, 1: 0, 2: 0}
    assert run.consumer.failures == 0
    assert run.client.committed == {0: 3, 1: 0, 2: 2}
    assert run.client.closed


def test_it_resumes_at_the_ledgers_position() -> None:
    log = Log("id-1", 5)
    ledger = FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 3, record_digest(log.records[0][2]))
    assert Run(log, ledger).ledger.charged == offsets(0, 3, 4)


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.usage.consumer.BATCH_RECORDS", 4)
    run = Run(Log("id-1", 6, 5))
    assert max(run.ledger.batches) == 4
    assert sorted(run.ledger.charged) == offsets(0, *range(6)) + offsets(1, *range(5))


@pytest.mark.parametrize("stored_at", [1, 3, 5])
def test_other_records_at_the_same_offsets_are_another_log(stored_at: int) -> None:
    ledger = FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", stored_at, b"digest of another record")
    run = Run(Log("id-1", 5), ledger)
    assert run.ledger.charged == offsets(0, *range(5))
    assert run.consumer.failures == 0


def test_another_topic_id_is_another_log() -> None:
    log = Log("id-2", 5)
    ledger = FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 3, record_digest(log.records[0][2]))
    assert Run(log, ledger).ledger.charged == offsets(0, *range(5))


@pytest.mark.parametrize("digest", [None, b"digest"])
def test_a_log_that_is_too_short_is_another_log(digest: bytes | None) -> None:
    ledger = FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 9, digest)
    assert Run(Log("id-1", 5), ledger).ledger.charged == offsets(0, *range(5))


def test_an_emptied_log_is_another_log() -> None:
    def write(run: Run) -> None:
        run.log.records[0].append(run.log.record(0, 0))

    def wait(_: Run) -> None:
        time.sleep(0.06)

    ledger = FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 9, b"digest")
    run = Run(Log("id-1", 0), ledger, wait, write)
    assert run.ledger.charged == offsets(0, 0)


def test_an_end_reported_too_low_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log, ledger = Log("id-1", 5), FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 4, record_digest(log.records[0][3]))
    monkeypatch.setattr(FakeClient, "end_offsets", lambda _, wanted: dict.fromkeys(wanted, 2))
    assert Run(log, ledger).ledger.charged == offsets(0, 4)


def test_a_recreated_topic_is_detected_while_it_runs() -> None:
    def recreate_topic(run: Run) -> None:
        run.kafka.log = Log("id-2", 4)

    run = Run(Log("id-1", 3), None, recreate_topic, nothing)
    assert run.ledger.values[:3] == [b"id-1 0", b"id-1 1", b"id-1 2"]
    assert set(run.ledger.values[3:]) >= {b"id-2 0", b"id-2 1", b"id-2 2", b"id-2 3"}
    assert run.ledger.stored[0].topic_id == "id-2"


# ------------------------------------------------------------------------------------- gaps and losses


@pytest.mark.parametrize("gone", [(0,), (0, 1), (2,), (1, 2, 3), (4,)])
def test_gaps_of_compaction_are_no_loss(gone: tuple[int, ...]) -> None:
    log = Log("id-1", 6)
    log.leave_out(0, *gone)
    run = Run(log)
    assert run.ledger.charged == offsets(0, *(number for number in range(6) if number not in gone))
    assert run.ledger.stored[0].next_offset == 6
    assert run.consumer.lost_partitions == {}


@pytest.mark.parametrize("gone", [(2,), (3,), (2, 3), (1, 2, 3, 4)])
def test_gaps_near_the_stored_position_are_no_loss(gone: tuple[int, ...]) -> None:
    log, ledger = Log("id-1", 6), FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 3, record_digest(log.records[0][2]))
    log.leave_out(0, *gone)
    run = Run(log, ledger)
    assert run.ledger.charged == offsets(0, *(number for number in (3, 4, 5) if number not in gone))


def test_lost_records_stop_only_their_partition(caplog: pytest.LogCaptureFixture) -> None:
    log, ledger = Log("id-1", 6, 4), FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 2, b"digest")
    log.forget_before(0, 4)
    run = Run(log, ledger)
    assert run.ledger.charged == offsets(1, 0, 1, 2, 3)
    assert run.client.paused == {0}
    assert run.ledger.stored[0].next_offset == 2
    assert "offsets 2 to 3 were deleted" in caplog.text


def test_records_lost_while_it_runs_stop_the_partition() -> None:
    def lose(run: Run) -> None:
        run.log.records[0] += [run.log.record(0, offset) for offset in range(3, 9)]
        run.log.forget_before(0, 6)

    run = Run(Log("id-1", 3), None, lose)
    assert run.ledger.charged == offsets(0, 0, 1, 2)
    assert run.client.paused == {0}


@pytest.mark.parametrize("answer", ["accepted", "made anew"])
def test_a_stopped_partition_continues_when_possible(answer: str) -> None:
    log, ledger = Log("id-1", 6), FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 2, b"digest")
    log.forget_before(0, 4)

    def go_on(run: Run) -> None:
        assert run.consumer.lost_partitions == {0: DataLost(2, 4)}
        if answer == "accepted":
            ledger.stored[0] = StoredPosition("id-1", 4, None)
        else:
            run.kafka.log = Log("id-2", 5)

    run = Run(log, ledger, go_on)
    assert run.ledger.charged == offsets(0, *((4, 5) if answer == "accepted" else range(5)))
    assert run.client.paused == set()


# -------------------------------------------------------------------------------------- rebalances


def test_partitions_come_and_go() -> None:
    log = Log("id-1", 3, 3)

    def lose_one(run: Run) -> None:
        run.client.take_away({1})
        log.records[0].append(log.record(0, 3))
        log.records[1].append(log.record(1, 3))

    def get_it_back(run: Run) -> None:
        # Another consumer has charged one more record meanwhile.
        log.records[1].append(log.record(1, 4))
        run.ledger.stored[1] = StoredPosition("id-1", 4, record_digest(log.records[1][3]))
        run.client.give({1})

    run = Run(log, None, lose_one, get_it_back)
    assert sorted(run.ledger.charged) == offsets(0, 0, 1, 2, 3) + offsets(1, 0, 1, 2, 4)
    assert run.consumer.failures == 0


def test_the_position_of_a_reassigned_partition_is_loaded_again() -> None:
    log = Log("id-1", 3)

    def leave_and_return(run: Run) -> None:
        run.client.take_away({0})
        log.records[0] += [log.record(0, 3), log.record(0, 4)]
        run.ledger.stored[0] = StoredPosition("id-1", 4, record_digest(log.records[0][3]))
        run.client.committed.clear()  # at the beginning of the log, as far as the client knows
        run.client.give({0})

    run = Run(log, None, leave_and_return)
    assert run.ledger.charged == offsets(0, 0, 1, 2, 4)


@pytest.mark.parametrize("method", ["beginning_offsets", "end_offsets", "highwater"])
def test_a_partition_may_be_revoked_at_any_moment(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The client's own thread revokes it between two of our calls, and assigns it again later."""
    original = getattr(FakeClient, method)
    gone: list[bool] = []

    def lose_it_first(client: FakeClient, argument: Any) -> Any:
        if not gone:
            gone.append(True)
            client.take_away({0})
            client.when_idle.append(lambda client: client.give({0}))
        return original(client, argument)

    monkeypatch.setattr(FakeClient, method, lose_it_first)
    run = Run(Log("id-1", 3, 2))
    assert sorted(run.ledger.charged) == offsets(0, 0, 1, 2) + offsets(1, 0, 1)
    assert run.consumer.failures == 0
    assert len(run.kafka.clients) == 1


def test_a_lost_partition_may_be_revoked_before_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    log, ledger = Log("id-1", 6), FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 2, b"digest")
    log.forget_before(0, 4)
    original = FakeClient.end_offsets

    def lose_it_first(client: FakeClient, argument: Any) -> Any:
        client.take_away({0})
        return original(client, argument)

    monkeypatch.setattr(FakeClient, "end_offsets", lose_it_first)
    run = Run(log, ledger)
    assert run.ledger.charged == []
    assert run.consumer.failures == 0


# ---------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("failure", "reconnects"),
    [
        (StoreUnavailable(), False),
        (CheckpointConflict(), False),
        (DeadLettersUnavailable(), True),
        (KafkaConnectionError("no broker"), True),
        (OSError("no route"), True),
    ],
)
def test_after_a_failure_it_resumes_at_the_stored_positions(failure: Exception, reconnects: bool) -> None:
    ledger = FakeLedger()
    ledger.failures = [failure, failure]
    run = Run(Log("id-1", 3, 2), ledger)
    assert sorted(run.ledger.charged) == offsets(0, 0, 1, 2) + offsets(1, 0, 1)
    assert (run.consumer.failures, run.ledger.resets) == (2, 2)
    assert len(run.kafka.clients) == (3 if reconnects else 1)
    assert all(client.closed for client in run.kafka.clients)


def test_it_retries_a_broker_that_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = FakeKafka.connect
    refused = [KafkaConnectionError("no broker")] * 3

    def connect_at_last(kafka: FakeKafka, topic: str, listener: Any) -> FakeClient:
        if refused:
            raise refused.pop()
        return connect(kafka, topic, listener)

    monkeypatch.setattr(FakeKafka, "connect", connect_at_last)
    run = Run(Log("id-1", 3))
    assert run.ledger.charged == offsets(0, 0, 1, 2)
    assert run.consumer.failures == 3


def test_partitions_may_change_while_it_waits_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pausing a partition that was just revoked fails in the client, which then reconnects."""
    ledger = FakeLedger()
    ledger.failures = [StoreUnavailable()]
    assignment = FakeClient.assignment
    calls: list[int] = []

    def lose_it_after(client: FakeClient) -> Any:
        found = assignment(client)
        if ledger.resets and not calls:
            calls.append(1)
            client.take_away({0})
        return found

    monkeypatch.setattr(FakeClient, "assignment", lose_it_after)
    run = Run(Log("id-1", 3), ledger)
    assert run.ledger.charged == offsets(0, 0, 1, 2)
    assert len(run.kafka.clients) == 2


def test_unexpected_errors_are_raised() -> None:
    ledger = FakeLedger()
    ledger.failures = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        Run(Log("id-1", 3), ledger)


def test_it_does_nothing_if_stopped_before_the_start() -> None:
    stop = Event()
    stop.set()
    kafka, ledger = FakeKafka(Log("id-1", 3), stop), FakeLedger()
    UsageConsumer(kafka, ledger, cast("UsageIngest", ledger), TOPIC).run(stop)
    assert (kafka.clients, ledger.charged) == ([], [])


def test_a_failed_drain_still_leaves_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeClient, "commit", _fail)
    run = Run(Log("id-1", 3))
    assert run.client.closed


def _fail(*_: Any) -> None:
    raise KafkaConnectionError("no broker")


def test_a_partition_without_a_leader_waits_and_the_others_go_on() -> None:
    log = Log("id-1", 3, 2)
    log.leaderless.add(0)

    def others_went_on(run: Run) -> None:
        assert run.ledger.charged == offsets(1, 0, 1)
        log.leaderless.clear()

    run = Run(log, None, others_went_on, nothing)
    assert run.ledger.charged == [*offsets(1, 0, 1), *offsets(0, 0, 1, 2)]
    assert run.consumer.failures == 0


def test_another_log_without_a_leader_is_checked_again() -> None:
    log = Log("id-1", 5)
    ledger = FakeLedger()
    ledger.stored[0] = StoredPosition("id-1", 3, b"digest of another record")

    def lose_leader(run: Run) -> None:
        log.leaderless.clear()

    original = Partitions._replace_log

    def replace_log(self: Partitions, partition: int) -> None:
        log.leaderless.add(0)
        original(self, partition)
        patch.undo()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Partitions, "_replace_log", replace_log)
        run = Run(log, ledger, lose_leader, nothing)
    assert run.ledger.charged == offsets(0, *range(5))
    assert run.consumer.failures == 0
