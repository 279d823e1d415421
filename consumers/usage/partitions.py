"""The partitions that Kafka's group gave one connection, each at its place in its log.

On assignment, and whenever an offset is not the expected one, a partition is compared with its stored
position, and the reader is put there.
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
    choose_start,
    record_digest,
)

log = logging.getLogger(__name__)

PROOF_TIMEOUT_S: Final = 3.0
LEADER_RETRY_S: Final = 2.0


class Partition(msgspec.Struct):
    """A partition that is ours: the log it belongs to and the next offset we charge."""

    topic_id: str
    next_offset: int
    check_digest: bytes | None
    gap_checked_at: int = -1
    proof_deadline: float = math.inf
    """Until when the record before the position must have shown up (monotonic clock)."""


class Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Remembers newly assigned partitions. Called on the client's own thread: it only takes notes."""

    def __init__(self) -> None:
        self._fresh: set[int] = set()
        self._lock = Lock()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to do: the position's compare-and-set keeps two owners apart."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note what must be compared with its stored position."""
        with self._lock:
            self._fresh |= {tp.partition for tp in assigned}

    def take(self) -> set[int]:
        """Return and forget the notes."""
        with self._lock:
            fresh, self._fresh = self._fresh, set()
            return fresh


class Partitions:
    """What is ours on one connection: it is gone with the connection, and nothing of it is durable.

    `flush` has everything charged that was taken, before a partition is looked at again. What talks to the
    broker raises KafkaError, what reads stored positions StoreUnavailable.
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
        """Partitions that stopped, because records are gone or cannot be read."""
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
        """The partitions that are read from the place the database knows."""
        return set(self._owned)

    def sync_assignment(self) -> set[int]:
        """Let go of partitions that are not ours any more, take up new ones, and return the latter."""
        assigned = {tp.partition for tp in self._consumer.assignment()}
        fresh = self._assignments.take() & assigned
        known = self._owned.keys() | self.lost.keys()
        for partition in fresh | (known - assigned):
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
        """Return the records that come next; none where the log is not as expected."""
        owned_partition = self._owned.get(partition)
        if owned_partition is None:
            return ()
        if owned_partition.check_digest is not None:
            before, records = records[0], records[1:]
            other = (
                before.offset == owned_partition.next_offset - 1
                and record_digest(before) != owned_partition.check_digest
            )
            shorter = (
                before.offset < owned_partition.next_offset - 1 and owned_partition.proof_deadline < math.inf
            )
            if other or shorter:
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
            return records  # compaction or an aborted transaction left a hole: nothing was lost
        self._recheck(partition, owned_partition)
        return ()

    def move(self, partition: int, records: Sequence[Record]) -> PositionMove:
        """Return the step past records that come next."""
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
        """Expect what comes after these moves."""
        for move in moves:
            self._owned[move.partition].next_offset = move.next_offset

    def restart_unproven_logs(self) -> None:
        """Read logs from their beginning whose last record charged did not show up in time."""
        now = time.monotonic()
        for partition, owned_partition in list(self._owned.items()):
            if owned_partition.check_digest is not None and now > owned_partition.proof_deadline:
                self._replace_log(partition)

    def detect_new_topic(self) -> None:
        """Look again at partitions whose topic was made anew, or whose loss an operator has accepted."""
        topic_id = self._topic_id(self._topic)
        if self.lost:
            stored = self._positions.positions(self._topic)
            for partition, lost in list(self.lost.items()):
                at = stored.get(partition)
                if at is not None and (at.next_offset >= lost.earliest or at.topic_id != topic_id):
                    del self.lost[partition]
                    with suppress(KeyError):
                        self._consumer.resume(TopicPartition(self._topic, partition))
        if any(owned_partition.topic_id != topic_id for owned_partition in self._owned.values()):
            self._owned.clear()

    def measure_lag(self) -> None:
        """Note how far each partition is behind."""
        for partition, owned_partition in self._owned.items():
            highwater = None
            with suppress(IllegalStateError, KeyError):  # it is not ours any more
                highwater = self._consumer.highwater(TopicPartition(self._topic, partition))
            if highwater is not None:
                self.lag[partition] = max(0, highwater - owned_partition.next_offset)

    def offsets(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return where we stand, as Kafka's own offsets."""
        return {
            TopicPartition(self._topic, partition): OffsetAndMetadata(owned_partition.next_offset, "", -1)
            for partition, owned_partition in self._owned.items()
        }

    def stop_unreadable(self, error: CorruptRecordError) -> None:
        """Stop the partition whose next records cannot be read; the others go on."""
        assigned = self._consumer.assignment()
        self._owned.clear()  # what is polled here is read again
        with suppress(KeyError, ValueError):  # partitions went meanwhile: the next poll tells again
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
        """Begin again from the stored positions."""
        self._owned.clear()

    def poll_paused(self) -> None:
        """Stay in the group while nothing can be charged.

        Raises:
            KafkaError, OSError: the broker does not answer.
            KeyError: the partitions changed meanwhile.
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
        wanted = [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
        earliest = known_offsets(self._consumer.beginning_offsets, wanted)
        ends = known_offsets(self._consumer.end_offsets, wanted)
        for topic_partition in wanted:
            if topic_partition in earliest and topic_partition in ends:
                bounds = LogBounds(topic_id, earliest[topic_partition], ends[topic_partition])
                self._start(topic_partition, stored.get(topic_partition.partition), bounds)
            else:
                self._wait_for_leader(topic_partition.partition)

    def _wait_for_leader(self, partition: int) -> None:
        """Leave a partition that nobody serves at the moment, and look again soon; the others go on."""
        self._owned.pop(partition, None)
        self._leaderless[partition] = time.monotonic() + LEADER_RETRY_S
        log.warning("partition %d has no leader: it is looked at again in %.0f s", partition, LEADER_RETRY_S)

    def _start(
        self, topic_partition: TopicPartition, stored: StoredPosition | None, bounds: LogBounds
    ) -> None:
        partition = topic_partition.partition
        start = choose_start(stored, bounds)
        if isinstance(start, DataLost):
            self.lost[partition] = start
            with suppress(KeyError):  # it is not ours any more
                self._consumer.pause(topic_partition)
            log.error(
                "partition %d stopped: offsets %d to %d are gone from the log before they were charged",
                partition,
                start.position,
                start.earliest - 1,
            )
            return
        if isinstance(start, RestartLog):
            if stored is not None:
                log.warning("partition %d is read again from its beginning: %s", partition, start.reason)
            self._start_over(topic_partition, stored, bounds)
            return
        proof_deadline = time.monotonic() + PROOF_TIMEOUT_S if start.unproven else math.inf
        self._owned[partition] = Partition(
            bounds.topic_id, start.offset, start.check_digest, proof_deadline=proof_deadline
        )
        # The record before the position is read once more to see that it is the one we charged.
        self._seek(topic_partition, start.offset - (1 if start.check_digest else 0))

    def _start_over(
        self, topic_partition: TopicPartition, stored: StoredPosition | None, bounds: LogBounds
    ) -> None:
        partition = topic_partition.partition
        self._positions.start_log(self._topic, partition, bounds.topic_id, bounds.earliest, stored)
        self._owned[partition] = Partition(bounds.topic_id, bounds.earliest, None)
        self._seek(topic_partition, bounds.earliest)

    def _seek(self, topic_partition: TopicPartition, offset: int) -> None:
        # The client's own thread may give a partition up at any time; the next assignment tells us.
        with suppress(ValueError, KeyError):
            self._consumer.seek(topic_partition, offset)

    def _replace_log(self, partition: int) -> None:
        log.warning("partition %d is read again from its beginning: its records are others", partition)
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
        """Compare a partition with its stored position anew; a gap that is still there is then real."""
        self._flush()
        del self._owned[partition]
        self._acquire([partition])
        again = self._owned.get(partition)
        if again is not None and again.next_offset == owned_partition.next_offset:
            again.gap_checked_at = again.next_offset
