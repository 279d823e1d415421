"""The partitions that Kafka's consumer group assigned to one connection, and the next offset of each.

On assignment, and when an offset is not the expected one, a partition is compared with its stored position,
and the consumer seeks to that position.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, Final

import msgspec
from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.errors import CorruptRecordError, IllegalStateError
from kafka.structs import OffsetAndMetadata

from consumers.usage.batch import Record
from consumers.usage.broker_offsets import known_offsets
from consumers.usage.ports import PositionMove
from consumers.usage.positions import (
    DataLost,
    LogBounds,
    PositionStore,
    RestartLog,
    StoredPosition,
    choose_start_offset,
    record_digest,
)

log = logging.getLogger(__name__)

PROOF_TIMEOUT_S: Final = 3.0
LEADER_RETRY_S: Final = 2.0


class Partition(msgspec.Struct):
    """An owned partition: the topic id of its log, and the next offset to charge."""

    topic_id: str
    next_offset: int
    check_digest: bytes | None
    gap_checked_at: int = -1
    proof_deadline: float = math.inf
    """The time limit for reading the record before the position (monotonic clock)."""


class Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Collects newly assigned partitions. The Kafka client calls it on its own thread, so it only records."""

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._lock = Lock()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Do nothing: the compare-and-set of the position excludes a second owner."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Add partitions to compare with their stored positions."""
        with self._lock:
            self._new |= {tp.partition for tp in assigned}

    def take(self) -> set[int]:
        """Return the collected partitions, and clear the collection."""
        with self._lock:
            new, self._new = self._new, set()
            return new


class Partitions:
    """The owned partitions of one connection. The state is in memory only and ends with the connection.

    `flush` charges all submitted records, before a partition is compared again. Methods that call the broker
    raise KafkaError; methods that read stored positions raise StoreUnavailable.
    """

    def __init__(
        self,
        consumer: Any,
        assignments: Assignments,
        *,
        topic: str,
        topic_id: Callable[[str], str],
        positions: PositionStore,
        flush: Callable[[], object],
    ) -> None:
        self.lost: dict[int, DataLost] = {}
        """Stopped partitions, whose records are lost or unreadable."""
        self.lag: dict[int, int] = {}
        self._owned: dict[int, Partition] = {}
        self._leaderless: dict[int, float] = {}
        self._consumer = consumer
        self._assignments = assignments
        self._topic = topic
        self._topic_id = topic_id
        self._positions = positions
        self._flush = flush

    @property
    def owned(self) -> set[int]:
        """The partitions that are read from their stored positions."""
        return set(self._owned)

    def sync_assignment(self) -> set[int]:
        """Drop revoked partitions, start newly assigned ones, and return the new ones."""
        assigned = {tp.partition for tp in self._consumer.assignment()}
        newly_assigned = self._assignments.take() & assigned
        known = self._owned.keys() | self.lost.keys()
        for partition in newly_assigned | (known - assigned):
            self._owned.pop(partition, None)
            self.lost.pop(partition, None)
            self.lag.pop(partition, None)
        now = time.monotonic()
        self._leaderless = {partition: due for partition, due in self._leaderless.items() if due > now}
        unknown = assigned - self._owned.keys() - self.lost.keys() - self._leaderless.keys()
        if unknown:
            self._flush()
            self._acquire(unknown)
        return unknown

    def next_records(self, partition: int, records: Sequence[Record]) -> Sequence[Record]:
        """Return the next records to charge; none if the log is not as expected."""
        owned_partition = self._owned.get(partition)
        if owned_partition is None:
            return ()
        if owned_partition.check_digest is not None:
            before, records = records[0], records[1:]
            differs = (
                before.offset == owned_partition.next_offset - 1
                and record_digest(before) != owned_partition.check_digest
            )
            is_shorter = (
                before.offset < owned_partition.next_offset - 1 and owned_partition.proof_deadline < math.inf
            )
            if differs or is_shorter:
                self._replace_log(partition)
                return ()
            if before.offset >= owned_partition.next_offset:
                records = [before, *records]
            owned_partition.check_digest = None
        if not records or records[0].offset == owned_partition.next_offset:
            return records
        if (
            records[0].offset > owned_partition.next_offset
            and owned_partition.gap_checked_at == owned_partition.next_offset
        ):
            return records  # a gap from compaction or an aborted transaction: nothing was lost
        self._recheck(partition, owned_partition)
        return ()

    def move(self, partition: int, records: Sequence[Record]) -> PositionMove:
        """Return the position move past the next records."""
        owned_partition = self._owned[partition]
        last = records[-1]
        return PositionMove(
            self._topic,
            partition,
            owned_partition.topic_id,
            owned_partition.next_offset,
            last.offset + 1,
            record_digest(last),
        )

    def advance(self, moves: Iterable[PositionMove]) -> None:
        """Advance the expected offsets after these moves."""
        for move in moves:
            self._owned[move.partition].next_offset = move.next_offset

    def restart_unproven_logs(self) -> None:
        """Restart logs whose last charged record was not read in time."""
        now = time.monotonic()
        for partition, owned_partition in list(self._owned.items()):
            if owned_partition.check_digest is not None and now > owned_partition.proof_deadline:
                self._replace_log(partition)

    def detect_new_topic(self) -> None:
        """Compare partitions again if their topic was recreated, or if an operator has accepted a loss."""
        topic_id = self._topic_id(self._topic)
        if self.lost:
            stored = self._positions.positions(self._topic)
            for partition, lost in list(self.lost.items()):
                stored_position = stored.get(partition)
                if stored_position is not None and (
                    stored_position.next_offset >= lost.earliest or stored_position.topic_id != topic_id
                ):
                    del self.lost[partition]
                    with suppress(KeyError):
                        self._consumer.resume(TopicPartition(self._topic, partition))
        if any(owned_partition.topic_id != topic_id for owned_partition in self._owned.values()):
            self._owned.clear()

    def measure_lag(self) -> None:
        """Update the lag of each partition."""
        for partition, owned_partition in self._owned.items():
            highwater = None
            with suppress(IllegalStateError, KeyError):  # it was revoked
                highwater = self._consumer.highwater(TopicPartition(self._topic, partition))
            if highwater is not None:
                self.lag[partition] = max(0, highwater - owned_partition.next_offset)

    def offsets(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return the next offsets in the format of Kafka's offset commits."""
        return {
            TopicPartition(self._topic, partition): OffsetAndMetadata(owned_partition.next_offset, "", -1)
            for partition, owned_partition in self._owned.items()
        }

    def stop_unreadable(self, error: CorruptRecordError) -> None:
        """Stop the partition whose next records are unreadable. The other partitions continue."""
        assigned = self._consumer.assignment()
        self._owned.clear()  # records that are polled here are read again later
        with suppress(KeyError, ValueError):  # the assignment changed: the next poll fails again
            for topic_partition in sorted(assigned):
                self._consumer.pause(*assigned)
                self._consumer.resume(topic_partition)
                if not self._can_poll():
                    offset = self._consumer.position(topic_partition)
                    self.lost[topic_partition.partition] = DataLost(offset, offset + 1)
                    log.error("partition %d stopped: %s", topic_partition.partition, error)
            self._consumer.pause(*assigned)
            self._resume(assigned)

    def reset(self) -> None:
        """Drop all partitions, so that they resume at their stored positions."""
        self._owned.clear()

    def poll_paused(self) -> None:
        """Poll to stay in the group while nothing can be charged.

        Raises:
            KafkaError, OSError: the broker does not respond.
            KeyError: the assignment changed during the poll.
        """
        assigned = self._consumer.assignment()
        self._consumer.pause(*assigned)
        self._consumer.poll(timeout_ms=0)
        self._resume(assigned)

    def _resume(self, assigned: Iterable[TopicPartition]) -> None:
        self._consumer.resume(*(tp for tp in assigned if tp.partition not in self.lost))

    def _can_poll(self) -> bool:
        try:
            self._consumer.poll(timeout_ms=1_000, max_records=1)
        except CorruptRecordError:
            return False
        return True

    def _acquire(self, partitions: Iterable[int]) -> None:
        topic_id = self._topic_id(self._topic)
        stored = self._positions.positions(self._topic)
        topic_partitions = [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
        earliest = known_offsets(self._consumer.beginning_offsets, topic_partitions)
        ends = known_offsets(self._consumer.end_offsets, topic_partitions)
        for topic_partition in topic_partitions:
            if topic_partition in earliest and topic_partition in ends:
                bounds = LogBounds(topic_id, earliest[topic_partition], ends[topic_partition])
                self._start(topic_partition, stored.get(topic_partition.partition), bounds)
            else:
                self._wait_for_leader(topic_partition.partition)

    def _wait_for_leader(self, partition: int) -> None:
        """Leave out a partition without a leader, and retry it soon. The other partitions continue."""
        self._owned.pop(partition, None)
        self._leaderless[partition] = time.monotonic() + LEADER_RETRY_S
        log.warning("partition %d has no leader, retrying in %.0f s", partition, LEADER_RETRY_S)

    def _start(
        self, topic_partition: TopicPartition, stored: StoredPosition | None, bounds: LogBounds
    ) -> None:
        partition = topic_partition.partition
        start = choose_start_offset(stored, bounds)
        if isinstance(start, DataLost):
            self.lost[partition] = start
            with suppress(KeyError):  # it was revoked
                self._consumer.pause(topic_partition)
            log.error(
                "partition %d stopped: offsets %d to %d were deleted from the log before they were charged",
                partition,
                start.position,
                start.earliest - 1,
            )
            return
        if isinstance(start, RestartLog):
            if stored is not None:
                # A recreated topic is normal. A topic that became shorter has lost records.
                level = logging.INFO if stored.topic_id != bounds.topic_id else logging.WARNING
                log.log(level, "partition %d: %s, so it is read from its beginning", partition, start.reason)
            self._start_over(topic_partition, stored, bounds)
            return
        proof_deadline = time.monotonic() + PROOF_TIMEOUT_S if start.unproven else math.inf
        self._owned[partition] = Partition(
            bounds.topic_id, start.offset, start.check_digest, proof_deadline=proof_deadline
        )
        # The record before the position is read again, to verify that it is the one that was charged.
        self._seek(topic_partition, start.offset - (1 if start.check_digest else 0))

    def _start_over(
        self, topic_partition: TopicPartition, stored: StoredPosition | None, bounds: LogBounds
    ) -> None:
        partition = topic_partition.partition
        self._positions.start_log(self._topic, partition, bounds.topic_id, bounds.earliest, stored)
        self._owned[partition] = Partition(bounds.topic_id, bounds.earliest, None)
        self._seek(topic_partition, bounds.earliest)

    def _seek(self, topic_partition: TopicPartition, offset: int) -> None:
        # The client's own thread may lose a partition at any time; the next assignment reports it.
        with suppress(ValueError, KeyError):
            self._consumer.seek(topic_partition, offset)

    def _replace_log(self, partition: int) -> None:
        log.warning("reading partition %d again from its beginning: its records have changed", partition)
        topic_partition = TopicPartition(self._topic, partition)
        self._flush()
        stored = self._positions.positions(self._topic).get(partition)
        earliest = known_offsets(self._consumer.beginning_offsets, [topic_partition]).get(topic_partition)
        if earliest is None:
            self._wait_for_leader(partition)
            return
        bounds = LogBounds(self._topic_id(self._topic), earliest, earliest)
        self._start_over(topic_partition, stored, bounds)

    def _recheck(self, partition: int, owned_partition: Partition) -> None:
        """Compare a partition with its stored position again. A gap that still exists afterwards is real."""
        self._flush()
        del self._owned[partition]
        self._acquire([partition])
        rechecked = self._owned.get(partition)
        if rechecked is not None and rechecked.next_offset == owned_partition.next_offset:
            rechecked.gap_checked_at = rechecked.next_offset
