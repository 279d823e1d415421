"""Concurrent writers: consumers on their own partitions, consumers on the same partitions, and the API."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from consumers.usage.ingest import UsageIngest
from domain.shared.errors import CheckpointConflict, VersionConflict
from tests.integration.consumers.call_interceptor import call_once
from tests.integration.consumers.ingest_environment import IngestEnvironment, Partition
from tests.unit.usage.records import KafkaRecord, usage_record

WITHIN_S = 60
KINDS = ("photo_processing", "ai_image_rotation", "watermark_reprocess", "store_originals")


def traffic(partition: int, organisations: list[str], count: int, seed: int) -> list[KafkaRecord]:
    """Return messages, some of which repeat earlier ones."""
    chance = random.Random(seed)
    records: list[KafkaRecord] = []
    for number in range(count):
        if records and chance.random() < 0.05:
            records.append(chance.choice(records))
            continue
        changes = {"data.usage_type": chance.choice(KINDS), "data.run_id": f"run-{partition}-{number // 10}"}
        name = chance.choice(organisations)
        records.append(usage_record(f"{partition}-{number}", name, chance.randrange(40), changes))
    return records


def ids(records: list[KafkaRecord]) -> set[str]:
    return {record.value.split(b'"id": "')[1].split(b'"')[0].decode() for record in records if record.value}


def consume(ingest: UsageIngest, partition: Partition, batch: int) -> None:
    while partition.read_to < len(partition.log):
        ingest.submit(*partition.next(batch))
    ingest.flush()


def in_threads(*actions: Callable[[], object]) -> None:
    with ThreadPoolExecutor(len(actions)) as threads:
        for done in [threads.submit(action) for action in actions]:
            done.result(WITHIN_S)


OVERLAPS = {"disjoint": (["a", "b", "c"], ["d", "e", "f"]), "overlapping": (["a", "b", "c"], ["b", "c", "d"])}


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("in_between", ["flush", "leave in flight"])
def test_two_consumers_take_turns(ingest_env: IngestEnvironment, overlap: str, in_between: str) -> None:
    ingest_env.open(*"abcdef")
    partitions = [ingest_env.partition(0), ingest_env.partition(1)]
    ingests = [ingest_env.ingest(), ingest_env.ingest()]
    for partition, organisations in zip(partitions, OVERLAPS[overlap], strict=True):
        partition.add(*traffic(partition.number, organisations, 240, seed=partition.number))
    while any(partition.read_to < len(partition.log) for partition in partitions):
        for ingest, partition in zip(ingests, partitions, strict=True):
            ingest.submit(*partition.next(20))
            if in_between == "flush":
                ingest.flush()
    for ingest in ingests:
        ingest.flush()
    expected = {message_id for partition in partitions for message_id in ids(partition.log)}
    assert {charge.identity[1] for charge in ingest_env.recounted().charges} == expected
    assert sum(ingest.counts.charges for ingest in ingests) == len(expected)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_two_consumers_and_the_api_at_once(ingest_env: IngestEnvironment, overlap: str) -> None:
    ingest_env.open(*"abcdef", trial_credits=0)
    partitions = [ingest_env.partition(0), ingest_env.partition(1)]
    for partition, organisations in zip(partitions, OVERLAPS[overlap], strict=True):
        partition.add(*traffic(partition.number, organisations, 1_500, seed=partition.number + 10))
    consumed = Event()
    granted = dict.fromkeys("abcdef", 0)
    ledger = ingest_env.open_ledger()

    def hammer() -> None:
        while not consumed.is_set():
            for name in granted:
                ingest_env.grant(name, 3, ledger)
                granted[name] += 3

    def consume_all() -> None:
        try:
            in_threads(
                *(lambda p=partition: consume(ingest_env.ingest(), p, 60) for partition in partitions)  # type: ignore[misc]
            )
        finally:
            consumed.set()

    in_threads(hammer, consume_all)
    recounted = ingest_env.recounted()
    assert {charge.identity[1] for charge in recounted.charges} == ids(partitions[0].log) | ids(
        partitions[1].log
    )
    assert min(granted.values()) > 0
    spent = dict.fromkeys(granted, 0)
    for charge in recounted.charges:
        spent[charge.organisation_id] += charge.credits
    assert recounted.balances == {name: granted[name] - spent[name] for name in granted}
    assert [ingest_env.position(partition) for partition in partitions] == [1_500, 1_500]
    assert ingest_env.letters.safe == []


def test_a_busy_organisation_does_not_starve_the_consumer(ingest_env: IngestEnvironment) -> None:
    """Another writer commits before every single transaction."""
    ingest_env.open("hot", trial_credits=0)
    partition = ingest_env.partition()
    partition.add(*[usage_record(f"m-{number}", "hot", 2) for number in range(50)])

    def grant_before_begin(at: str) -> None:
        if at == "before begin":
            ingest_env.grant("hot", 1)

    consume(ingest_env.ingest(hook=grant_before_begin), partition, 5)
    assert ingest_env.recounted().balances == {"hot": 10 - 100}
    crossings = 2  # credits were added, and the first batch used all of them
    assert ingest_env.ledger.organisation("hot").version == 1 + 10 + 50 + crossings


@pytest.mark.parametrize("step", ["before load", "after load", "after rows", "before begin"])
def test_another_writer_at_every_moment_before_the_lock(ingest_env: IngestEnvironment, step: str) -> None:
    ingest_env.open("a", "b")
    partition, ingest = (
        ingest_env.partition(),
        ingest_env.ingest(hook=call_once(step, lambda: ingest_env.grant("a", 7))),
    )
    partition.add(usage_record("1", "a", 3), usage_record("2", "b", 4), usage_record("3", "a", 5))
    consume(ingest, partition, 3)
    assert ingest_env.recounted().balances == {"a": 99, "b": 96}


def test_another_writer_between_two_batches_in_flight(ingest_env: IngestEnvironment) -> None:
    ingest_env.open("a", "b")
    partition, ingest, ledger = ingest_env.partition(), ingest_env.ingest(), ingest_env.open_ledger()
    partition.add(*[usage_record(str(number), "ab"[number % 2], 3) for number in range(40)])
    with ThreadPoolExecutor(1) as api:
        while partition.read_to < len(partition.log):
            ingest.submit(*partition.next(4))
            granted = api.submit(ingest_env.grant, "a", 1, ledger)
        ingest.flush()
        granted.result(WITHIN_S)
    assert ingest_env.recounted().balances == {"a": 100 + 10 - 60, "b": 40}


def test_a_message_that_another_consumer_charged_is_a_repeat(ingest_env: IngestEnvironment) -> None:
    """The topic got more partitions, and a message was repeated in another one."""
    ingest_env.open("a")
    partitions, ingests = (
        [ingest_env.partition(0), ingest_env.partition(1)],
        [ingest_env.ingest(), ingest_env.ingest()],
    )
    for partition in partitions:
        partition.add(usage_record("1", "a"), usage_record(f"own-{partition.number}", "a"))
    for ingest, partition in zip(ingests, partitions, strict=True):
        consume(ingest, partition, 10)
    assert ingest_env.charged_ids() == ["1", "own-0", "own-1"]
    assert ingests[1].counts.repeats == 1


def test_two_consumers_of_the_same_partitions_charge_everything_once(ingest_env: IngestEnvironment) -> None:
    """Two consumers both believe that they own all partitions. Each resumes at the stored positions."""
    ingest_env.open(*"abc")
    logs = {number: traffic(number, ["a", "b", "c"], 300, seed=number) for number in range(3)}
    for number in logs:
        ingest_env.partition(number)
    lost = [0, 0]

    def fight(who: int) -> None:
        ingest, chance = ingest_env.ingest(name=f"fighter-{who}"), random.Random(who)
        partitions = [Partition("photo-processing.usage.v1", number) for number in logs]
        for partition in partitions:
            partition.add(*logs[partition.number])
        while True:
            stored = ingest_env.positions.positions("photo-processing.usage.v1")
            for partition in partitions:
                partition.read_to = stored[partition.number].next_offset
            if all(partition.read_to == len(partition.log) for partition in partitions):
                return
            try:
                while behind := [p for p in partitions if p.read_to < len(p.log)]:
                    taken = [partition.next(chance.randrange(1, 20)) for partition in behind]
                    moves = [move for some, _ in taken for move in some]
                    ingest.submit(moves, [record for _, records in taken for record in records])
                ingest.flush()
            except CheckpointConflict:
                lost[who] += 1
                ingest.reset()

    in_threads(lambda: fight(0), lambda: fight(1))
    charged = ingest_env.charged_ids()
    assert len(charged) == len(set(charged))
    assert set(charged) == {message_id for log in logs.values() for message_id in ids(log)}
    assert sum(lost) > 0


def test_a_writer_that_ignores_the_lock_is_noticed(ingest_env: IngestEnvironment) -> None:
    """A row is appended without the lock: the version check refuses the batch, and nothing is written."""
    ingest_env.open("a")
    partition = ingest_env.partition()

    def append_by_hand() -> None:
        ingest_env.connection.execute(
            "INSERT INTO ledger.events (originator_id, originator_version, topic, state)"
            " SELECT originator_id, 3, topic, state FROM ledger.events WHERE originator_version = 2"
        )

    ingest = ingest_env.ingest(hook=call_once("before start_commit", append_by_hand))
    partition.add(usage_record("1", "a"), usage_record("2", "a"))
    ingest.submit(*partition.next())
    with pytest.raises(VersionConflict):
        ingest.flush()
    assert ingest_env.position(partition) == 0
    ingest.reset()
    partition.read_to = 0
    consume(ingest, partition, 2)
    assert ingest_env.charged_ids() == ["1", "2"]
