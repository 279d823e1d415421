"""A Kafka client and a ledger in memory, for tests of the consumer's loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

from kafka import TopicPartition
from kafka.errors import IllegalStateError

from consumers.usage.batch import Record
from consumers.usage.ports import PositionMove
from consumers.usage.positions import StoredPosition
from domain.shared.errors import CheckpointConflict
from tests.unit.usage.records import KafkaRecord

TOPIC = "usage"
IDLE_POLLS = 3


class Log:
    """A topic: its id, and per partition its first offset and records."""

    def __init__(self, topic_id: str, *sizes: int) -> None:
        self.leaderless: set[int] = set()
        self.topic_id = topic_id
        self.earliest = dict.fromkeys(range(len(sizes)), 0)
        self.records = {
            partition: [self.record(partition, offset) for offset in range(size)]
            for partition, size in enumerate(sizes)
        }

    def record(self, partition: int, offset: int) -> KafkaRecord:
        value = f"{self.topic_id} {offset}".encode()
        return KafkaRecord(b"key", value, topic=TOPIC, partition=partition, offset=offset)

    def end(self, partition: int) -> int:
        records = self.records[partition]
        return records[-1].offset + 1 if records else self.earliest[partition]

    def forget_before(self, partition: int, offset: int) -> None:
        """Delete records like retention."""
        self.earliest[partition] = offset
        self.records[partition] = [r for r in self.records[partition] if r.offset >= offset]

    def leave_out(self, partition: int, *offsets: int) -> None:
        """Remove records like compaction or an aborted transaction."""
        self.records[partition] = [r for r in self.records[partition] if r.offset not in offsets]


class FakeClient:
    """A fake `kafka.KafkaConsumer`.

    When there is nothing more to read, the next scripted action runs. After the last one the loop is stopped.
    """

    def __init__(self, log: Callable[[], Log], listener: Any, stop: Event, assigned: set[int]) -> None:
        self.log = log
        self.listener = listener
        self.stop = stop
        self.assigned: set[int] = set()
        self.paused: set[int] = set()
        self.at: dict[int, int] = {}
        self.idle = 0
        self.closed = False
        self.committed: dict[int, int] = {}
        self.when_idle: list[Callable[[FakeClient], None]] = []
        self.give(assigned)

    def give(self, partitions: set[int]) -> None:
        """Assign partitions like a rebalance: the client starts at the group's offsets, which lag behind."""
        self.listener.on_partitions_assigned([TopicPartition(TOPIC, number) for number in partitions])
        self.assigned |= partitions
        for partition in partitions:
            self.at[partition] = self.committed.get(partition, self.log().earliest[partition])

    def take_away(self, partitions: set[int]) -> None:
        self.listener.on_partitions_revoked([TopicPartition(TOPIC, number) for number in partitions])
        self.assigned -= partitions
        self.paused -= partitions

    def poll(self, timeout_ms: int = 0, max_records: int = 500) -> dict[TopicPartition, list[Record]]:
        polled: dict[TopicPartition, list[Record]] = {}
        for partition in sorted(self.assigned - self.paused):
            log = self.log()
            at = self.at[partition]
            if not log.earliest[partition] <= at <= log.end(partition):
                at = log.earliest[partition]  # auto_offset_reset
            records = [record for record in log.records[partition] if record.offset >= at][:max_records]
            max_records -= len(records)
            if records:
                polled[TopicPartition(TOPIC, partition)] = list(records)
                self.at[partition] = records[-1].offset + 1
            if max_records == 0:
                break
        self.idle = 0 if polled else self.idle + 1
        if self.idle > IDLE_POLLS:
            self.idle = 0
            if self.when_idle:
                self.when_idle.pop(0)(self)
            else:
                self.stop.set()
        return polled

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(TOPIC, number) for number in self.assigned}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition.partition not in self.assigned:
            raise ValueError("Unassigned partition")
        self.at[partition.partition] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        for each in partitions:
            if each.partition not in self.assigned:
                raise KeyError(each)
            self.paused.add(each.partition)

    def resume(self, *partitions: TopicPartition) -> None:
        for each in partitions:
            if each.partition not in self.assigned:
                raise KeyError(each)
            self.paused.discard(each.partition)

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        for each in partitions:
            if each.partition in self.log().leaderless:
                raise KeyError(each)  # as kafka-python does, whatever else was requested
        return {each: self.log().earliest[each.partition] for each in partitions}

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {each: self.log().end(each.partition) for each in partitions}

    def highwater(self, partition: TopicPartition) -> int:
        if partition.partition not in self.assigned:
            raise IllegalStateError("Partition is not assigned")
        return self.log().end(partition.partition)

    def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        self.committed |= {each.partition: at.offset for each, at in offsets.items()}

    commit_async = commit

    def close(self, *, autocommit: bool) -> None:
        assert not autocommit
        self.closed = True


class FakeKafka:
    """A fake of `consumers.usage.consumer.Broker`."""

    def __init__(self, log: Log, stop: Event) -> None:
        self.log = log
        self.stop = stop
        self.assigned = set(log.records)
        self.clients: list[FakeClient] = []
        self.when_idle: list[Callable[[FakeClient], None]] = []

    def connect(self, topic: str, listener: Any) -> FakeClient:
        assert topic == TOPIC
        client = FakeClient(lambda: self.log, listener, self.stop, self.assigned)
        client.when_idle = self.when_idle
        self.clients.append(client)
        return client

    def topic_id(self, topic: str) -> str:
        return self.log.topic_id


class FakeLedger:
    """Positions, and an ingest that keeps its records: a fake of `PositionStore` and `UsageIngest`."""

    def __init__(self) -> None:
        self.stored: dict[int, StoredPosition] = {}
        self.charged: list[tuple[int, int]] = []
        self.values: list[bytes | None] = []
        self.batches: list[int] = []
        self.failures: list[Exception] = []
        self.resets = 0

    def positions(self, topic: str) -> dict[int, StoredPosition]:
        return dict(self.stored)

    def start_log(
        self, topic: str, partition: int, topic_id: str, offset: int, replaces: StoredPosition | None
    ) -> None:
        if self.stored.get(partition) != replaces:
            raise CheckpointConflict
        self.stored[partition] = StoredPosition(topic_id, offset, None)

    def submit(self, moves: Sequence[PositionMove], records: Sequence[Record]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        for move in moves:
            stored = self.stored[move.partition]
            if (stored.topic_id, stored.next_offset) != (move.topic_id, move.expected_offset):
                raise CheckpointConflict
            self.stored[move.partition] = StoredPosition(
                move.topic_id, move.next_offset, move.last_record_digest
            )
        self.batches.append(len(records))
        self.charged += [(record.partition, record.offset) for record in records]
        self.values += [record.value for record in records]

    def flush(self) -> None:
        """Nothing is ever in flight."""

    def reset(self) -> None:
        self.resets += 1

    def charge_parked(self) -> int:
        return 0

    expire_parked = charge_parked
