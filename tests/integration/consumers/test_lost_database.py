"""Fencing, lost replies and lost sessions: what is in is in once, and the stored positions say what is."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.usage import UsageIngest
from domain.errors import LedgerError, PositionMoved, StoreError, StoreUnavailable
from infra.event_store.usage_store import PostgresUsageTransaction
from tests.integration.consumers.hooks import once
from tests.integration.consumers.lab import Lab, Partition
from tests.unit.consumers.records import KafkaRecord, usage_record

ATTEMPTS = 3  # each of an ingest's two connections may turn out to be dead once


def run_to_the_end(lab: Lab, ingest: UsageIngest, partitions: list[Partition]) -> None:
    """Charge all there is from the stored positions; as the consumer does, try again after a failure."""
    for attempt in range(ATTEMPTS):
        ingest.reset()
        for partition in partitions:
            partition.read_to = lab.position(partition)
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


def test_a_zombie_writes_nothing(lab: Lab) -> None:
    lab.open("org-1")
    partition, zombie, heir = lab.partition(), lab.ingest(), lab.ingest()
    partition.add(usage_record("a", "org-1"), usage_record("b", "org-1"), KafkaRecord(None, b"x"))
    zombie.submit(*partition.next(1))
    zombie.flush()
    old_moves, records = partition.next()
    heir.submit(old_moves, records[:1])
    heir.flush()
    with pytest.raises(PositionMoved, match=f"{partition.topic}/0 is not 1"):
        zombie.submit(old_moves, records)
    assert lab.charged_ids() == ["a", "b"]
    assert zombie.counts.charges == 1


def test_a_zombie_with_a_batch_in_flight_fails_behind_it(lab: Lab) -> None:
    """The heir takes over between two batches of the zombie: the first is in, the second is not."""
    lab.open("org-1")
    partition, heir = lab.partition(), lab.ingest()
    partition.add(*[usage_record(f"m-{number}", "org-1") for number in range(4)])
    zombie = lab.ingest()
    zombie.submit(*partition.next(2))
    zombie.flush()
    moves, records = partition.next()
    zombie_moves, zombie_records = moves, records
    heir.submit(moves, records)
    heir.flush()
    with pytest.raises(PositionMoved):
        zombie.submit(zombie_moves, zombie_records)
    assert lab.charged_ids() == ["m-0", "m-1", "m-2", "m-3"]
    run_to_the_end(lab, zombie, [partition])
    assert lab.charged_ids() == ["m-0", "m-1", "m-2", "m-3"]


def test_one_lost_partition_of_several_takes_back_all_moves(lab: Lab) -> None:
    lab.open("org-1")
    kept, lost = lab.partition(0), lab.partition(1)
    kept.add(usage_record("a", "org-1"))
    lost.add(usage_record("b", "org-1"))
    other = lab.ingest()
    other.submit(*lost.next())
    other.flush()
    lost.read_to = 0
    (kept_move,), kept_records = kept.next()
    (lost_move,), lost_records = lost.next()
    ingest = lab.ingest()
    with pytest.raises(PositionMoved, match="/1 is not 0"):
        ingest.submit([lost_move, kept_move], [*lost_records, *kept_records])
    assert lab.position(kept) == 0
    assert lab.charged_ids() == ["b"]
    run_to_the_end(lab, ingest, [kept, lost])
    assert lab.charged_ids() == ["b", "a"]


def test_a_position_of_another_log_is_not_moved(lab: Lab) -> None:
    lab.open("org-1")
    partition, ingest = lab.partition(), lab.ingest()
    partition.add(usage_record("a", "org-1"))
    (move,), records = partition.next()
    stored = lab.positions.positions(partition.topic)[0]
    lab.positions.start_log(partition.topic, 0, "second-log", 0, stored)
    with pytest.raises(PositionMoved):
        ingest.submit([move], records)
    assert lab.charged_ids() == []


def test_a_batch_with_an_unknown_partition_writes_nothing(lab: Lab) -> None:
    lab.open("org-1")
    partition = Partition("another-topic", 7)
    partition.add(usage_record("a", "org-1"))
    with pytest.raises(PositionMoved, match="another-topic/7"):
        lab.ingest().submit(*partition.next())
    assert lab.charged_ids() == []


# ----------------------------------------------------------------------------------------- lost replies


def test_a_lost_commit_reply_charges_nothing_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.open("org-1")
    partition, ingest = lab.partition(), lab.ingest()
    partition.add(*[usage_record(f"m-{number}", "org-1") for number in range(9)])
    finish_commit = PostgresUsageTransaction.finish_commit

    def commit_and_lose_the_reply(transaction: PostgresUsageTransaction) -> int:
        finish_commit(transaction)
        lab.terminate()
        raise StoreUnavailable("the reply was lost")

    ingest.submit(*partition.next(3))
    ingest.flush()
    monkeypatch.setattr(PostgresUsageTransaction, "finish_commit", commit_and_lose_the_reply)
    ingest.submit(*partition.next(3))
    with pytest.raises(StoreUnavailable):
        ingest.submit(*partition.next(3))
    monkeypatch.undo()
    assert lab.position(partition) == 6
    run_to_the_end(lab, ingest, [partition])
    assert lab.charged_ids() == [f"m-{number}" for number in range(9)]
    assert lab.letters.safe == []


def test_resending_after_a_lost_reply_without_looking_is_fenced(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.open("org-1")
    partition, ingest = lab.partition(), lab.ingest()
    partition.add(usage_record("a", "org-1"))
    moves, records = partition.next()
    ingest.submit(moves, records)
    ingest.flush()
    ingest.reset()
    with pytest.raises(PositionMoved):
        ingest.submit(moves, records)
    assert lab.charged_ids() == ["a"]


# --------------------------------------------------------------------------------------- lost sessions


def mixed_log(lab: Lab) -> list[Partition]:
    """A log whose charging takes every step there is: see `test_every_step_is_taken`."""
    lab.open("org-1", "org-2")
    partitions = [lab.partition(0), lab.partition(1)]
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


def scenario(lab: Lab, ingest: UsageIngest, partitions: list[Partition]) -> None:
    """Charge half, let others write, open the unknown organisation, and charge the rest."""
    ingest.submit(*partitions[0].next(3))
    ingest.submit(*partitions[1].next(3))
    ingest.flush()
    lab.grant("org-1")
    lab.grant("org-2")
    for partition in partitions:
        ingest.submit(*partition.next(3))
    ingest.flush()
    ingest.submit(*partitions[0].next())
    ingest.flush()
    lab.open("new")
    ingest.charge_parked()
    ingest.submit(*partitions[1].next())
    ingest.flush()


EVERY_STEP = {
    f"before {step}"
    for step in (
        *("log_end", "load", "rows", "begin", "recorded", "parked", "parked_for_known", "parked_before"),
        *("streams_appended_after", "catch_up", "park", "unpark", "start_commit", "finish_commit"),
    )
}


def test_every_step_is_taken(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.usage.RECENT_KEYS", 1)
    steps: list[str] = []
    partitions, ingest = mixed_log(lab), lab.ingest(hook=steps.append)
    scenario(lab, ingest, partitions)
    ingest.expire_parked()
    assert set(steps) >= EVERY_STEP
    check(lab)


@pytest.mark.parametrize("step", sorted(EVERY_STEP - {"before rows"}))
def test_a_lost_session_is_survived_at_every_step(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The server ends every session of the ingest just before it takes a step."""
    monkeypatch.setattr("consumers.usage.RECENT_KEYS", 1)
    partitions, ingest = mixed_log(lab), lab.ingest(hook=once(step, lab.terminate))
    failure: Any = None
    try:
        scenario(lab, ingest, partitions)
        ingest.expire_parked()
    except LedgerError as error:
        failure = error
    assert failure is None or type(failure) is StoreUnavailable
    ingest.reset()  # what was on its way is in, or is not
    if "new" not in lab.books().versions:
        lab.open("new")
    run_to_the_end(lab, ingest, partitions)
    check(lab)


def check(lab: Lab) -> None:
    assert sorted(lab.charged_ids()) == sorted(
        f"{letter}-{number}" for letter in "abp" for number in range(3)
    )
    assert set(lab.letters.offsets()) == {(1, 1), (1, 4), (1, 7)}
    assert lab.parked() == []


def test_a_dead_server_is_unavailable_whatever_is_asked(lab: Lab) -> None:
    store = lab.store()
    lab.open("org-1")
    partition = lab.partition()
    partition.add(usage_record("a", "org-1"))
    transaction = store.begin(partition.next()[0])
    store.log_end()
    lab.terminate()
    for ask in (
        lambda: transaction.streams_appended_after(0),
        lambda: transaction.start_commit([], b"", []),
        transaction.finish_commit,
        store.log_end,
    ):
        with pytest.raises(StoreUnavailable):
            ask()
    transaction.rollback()  # nothing to do any more, and says nothing
    assert store.log_end() > 0
    assert lab.position(partition) == 0
    assert issubclass(StoreUnavailable, StoreError)
