"""Fencing, lost replies and lost sessions: every message counts once, and matches the stored positions."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.usage.ingest import UsageIngest
from domain.shared.errors import CheckpointConflict, LedgerError, StoreError, StoreUnavailable
from infra.event_store.usage_store import PostgresUsageTransaction
from tests.integration.consumers.call_interceptor import call_once
from tests.integration.consumers.ingest_environment import IngestEnvironment, Partition
from tests.unit.usage.records import KafkaRecord, usage_record

ATTEMPTS = 3  # each of an ingest's two connections may be dead once


def run_to_the_end(ingest_env: IngestEnvironment, ingest: UsageIngest, partitions: list[Partition]) -> None:
    """Charge all records from the stored positions. After a failure, try again like the consumer."""
    for attempt in range(ATTEMPTS):
        ingest.reset()
        for partition in partitions:
            partition.read_to = ingest_env.position(partition)
        try:
            charge_all(ingest, partitions)
        except StoreUnavailable:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return


def charge_all(ingest: UsageIngest, partitions: list[Partition]) -> None:
    while any(partition.read_to < len(partition.log) for partition in partitions):
        for partition in partitions:
            if partition.read_to < len(partition.log):
                ingest.submit(*partition.next(3))
    ingest.flush()
    ingest.charge_parked()
    ingest.expire_parked()


# --------------------------------------------------------------------------------------------- fencing


def test_a_zombie_writes_nothing(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1")
    partition, zombie, heir = ingest_env.partition(), ingest_env.ingest(), ingest_env.ingest()
    partition.add(usage_record("a", "org-1"), usage_record("b", "org-1"), KafkaRecord(None, b"x"))
    zombie.submit(*partition.next(1))
    zombie.flush()
    old_moves, records = partition.next()
    heir.submit(old_moves, records[:1])
    heir.flush()
    with pytest.raises(CheckpointConflict, match=f"{partition.topic}/0 is not 1"):
        zombie.submit(old_moves, records)
    assert ingest_env.charged_ids() == ["a", "b"]
    assert zombie.counts.charges == 1


def test_a_zombie_fails_after_its_batch_in_flight(ingest_env: IngestEnvironment) -> None:
    """The successor takes over between two batches of the zombie: only the first is committed."""
    ingest_env.open("org-1")
    partition, heir = ingest_env.partition(), ingest_env.ingest()
    partition.add(*[usage_record(f"m-{number}", "org-1") for number in range(4)])
    zombie = ingest_env.ingest()
    zombie.submit(*partition.next(2))
    zombie.flush()
    moves, records = partition.next()
    zombie_moves, zombie_records = moves, records
    heir.submit(moves, records)
    heir.flush()
    with pytest.raises(CheckpointConflict):
        zombie.submit(zombie_moves, zombie_records)
    assert ingest_env.charged_ids() == ["m-0", "m-1", "m-2", "m-3"]
    run_to_the_end(ingest_env, zombie, [partition])
    assert ingest_env.charged_ids() == ["m-0", "m-1", "m-2", "m-3"]


def test_one_lost_partition_rolls_back_all_moves(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1")
    kept, lost = ingest_env.partition(0), ingest_env.partition(1)
    kept.add(usage_record("a", "org-1"))
    lost.add(usage_record("b", "org-1"))
    other = ingest_env.ingest()
    other.submit(*lost.next())
    other.flush()
    lost.read_to = 0
    (kept_move,), kept_records = kept.next()
    (lost_move,), lost_records = lost.next()
    ingest = ingest_env.ingest()
    with pytest.raises(CheckpointConflict, match="/1 is not 0"):
        ingest.submit([lost_move, kept_move], [*lost_records, *kept_records])
    assert ingest_env.position(kept) == 0
    assert ingest_env.charged_ids() == ["b"]
    run_to_the_end(ingest_env, ingest, [kept, lost])
    assert ingest_env.charged_ids() == ["b", "a"]


def test_a_position_of_another_log_is_not_moved(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(usage_record("a", "org-1"))
    (move,), records = partition.next()
    stored = ingest_env.positions.positions(partition.topic)[0]
    ingest_env.positions.start_log(partition.topic, 0, "second-log", 0, stored)
    with pytest.raises(CheckpointConflict):
        ingest.submit([move], records)
    assert ingest_env.charged_ids() == []


def test_a_batch_with_an_unknown_partition_writes_nothing(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("org-1")
    partition = Partition("another-topic", 7)
    partition.add(usage_record("a", "org-1"))
    with pytest.raises(CheckpointConflict, match="another-topic/7"):
        ingest_env.ingest().submit(*partition.next())
    assert ingest_env.charged_ids() == []


# ----------------------------------------------------------------------------------------- lost replies


def test_a_lost_commit_reply_charges_nothing_twice(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(*[usage_record(f"m-{number}", "org-1") for number in range(9)])
    finish_commit = PostgresUsageTransaction.finish_commit

    def commit_and_lose_the_reply(transaction: PostgresUsageTransaction) -> int:
        finish_commit(transaction)
        ingest_env.terminate()
        raise StoreUnavailable("the reply was lost")

    ingest.submit(*partition.next(3))
    ingest.flush()
    monkeypatch.setattr(PostgresUsageTransaction, "finish_commit", commit_and_lose_the_reply)
    ingest.submit(*partition.next(3))
    with pytest.raises(StoreUnavailable):
        ingest.submit(*partition.next(3))
    monkeypatch.undo()
    assert ingest_env.position(partition) == 6
    run_to_the_end(ingest_env, ingest, [partition])
    assert ingest_env.charged_ids() == [f"m-{number}" for number in range(9)]
    assert ingest_env.letters.safe == []


def test_resending_after_a_lost_reply_without_looking_is_fenced(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_env.open("org-1")
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    partition.add(usage_record("a", "org-1"))
    moves, records = partition.next()
    ingest.submit(moves, records)
    ingest.flush()
    ingest.reset()
    with pytest.raises(CheckpointConflict):
        ingest.submit(moves, records)
    assert ingest_env.charged_ids() == ["a"]


# --------------------------------------------------------------------------------------- lost sessions


def mixed_log(ingest_env: IngestEnvironment) -> list[Partition]:
    """A log that needs every step of the ingest: see `test_every_step_is_taken`."""
    ingest_env.open("org-1", "org-2")
    partitions = [ingest_env.partition(0), ingest_env.partition(1)]
    for number in range(3):
        partitions[0].add(
            usage_record(f"a-{number}", "org-1"),
            usage_record(f"p-{number}", "new"),
            usage_record(f"a-{number}", "org-1"),
        )
        partitions[1].add(
            usage_record(f"b-{number}", "org-2"),
            KafkaRecord(b"org-2", b"not JSON"),
            usage_record("a-0", "org-1"),
        )
    return partitions


def scenario(ingest_env: IngestEnvironment, ingest: UsageIngest, partitions: list[Partition]) -> None:
    """Charge one half, write as other writers, open the unknown organisation, and charge the rest."""
    ingest.submit(*partitions[0].next(3))
    ingest.submit(*partitions[1].next(3))
    ingest.flush()
    ingest_env.grant("org-1")
    ingest_env.grant("org-2")
    for partition in partitions:
        ingest.submit(*partition.next(3))
    ingest.flush()
    ingest.submit(*partitions[0].next())
    ingest.flush()
    ingest_env.open("new")
    ingest.charge_parked()
    ingest.submit(*partitions[1].next())
    ingest.flush()


EVERY_STEP = {
    f"before {step}"
    for step in (
        *(
            "log_end",
            "load",
            "rows",
            "begin",
            "recorded",
            "parked",
            "parked_with_open_organisation",
            "parked_before",
        ),
        *("streams_appended_after", "catch_up", "park", "unpark", "start_commit", "finish_commit"),
    )
}


def test_every_step_is_taken(ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.usage.recent_keys.RECENT_KEYS", 1)
    steps: list[str] = []
    partitions, ingest = mixed_log(ingest_env), ingest_env.ingest(hook=steps.append)
    scenario(ingest_env, ingest, partitions)
    ingest.expire_parked()
    assert set(steps) >= EVERY_STEP
    check(ingest_env)


@pytest.mark.parametrize("step", sorted(EVERY_STEP - {"before rows"}))
def test_a_lost_session_is_survived_at_every_step(
    ingest_env: IngestEnvironment, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The server ends every session of the ingest just before a step."""
    monkeypatch.setattr("consumers.usage.recent_keys.RECENT_KEYS", 1)
    partitions, ingest = mixed_log(ingest_env), ingest_env.ingest(hook=call_once(step, ingest_env.terminate))
    failure: Any = None
    try:
        scenario(ingest_env, ingest, partitions)
        ingest.expire_parked()
    except LedgerError as error:
        failure = error
    assert failure is None or type(failure) is StoreUnavailable
    ingest.reset()  # the batch in flight is committed, or it is not
    if "new" not in ingest_env.recounted().versions:
        ingest_env.open("new")
    run_to_the_end(ingest_env, ingest, partitions)
    check(ingest_env)


def check(ingest_env: IngestEnvironment) -> None:
    assert sorted(ingest_env.charged_ids()) == sorted(
        f"{letter}-{number}" for letter in "abp" for number in range(3)
    )
    assert set(ingest_env.letters.offsets()) == {(1, 1), (1, 4), (1, 7)}
    assert ingest_env.parked() == []


def test_every_operation_reports_a_dead_server_as_unavailable(ingest_env: IngestEnvironment) -> None:
    store = ingest_env.store()
    ingest_env.open("org-1")
    partition = ingest_env.partition()
    partition.add(usage_record("a", "org-1"))
    transaction = store.begin(partition.next()[0])
    store.log_end()
    ingest_env.terminate()
    for ask in (
        lambda: transaction.streams_appended_after(0),
        lambda: transaction.start_commit([], b"", []),
        transaction.finish_commit,
        store.log_end,
    ):
        with pytest.raises(StoreUnavailable):
            ask()
    transaction.rollback()  # nothing to do, and no error
    assert store.log_end() > 0
    assert ingest_env.position(partition) == 0
    assert issubclass(StoreUnavailable, StoreError)
