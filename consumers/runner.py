"""The usage consumer's loop: poll, batch, charge, and get over whatever fails.

Kafka's group decides which partitions are ours; where we stand in them only the database knows. On every
assignment, and whenever an offset is not the expected one, a partition is compared with its stored
position and the reader is put there. Kafka's own offsets are committed for lag tools alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Event, Lock
from typing import Any, Final, Protocol

import msgspec
from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.errors import CorruptRecordError, IllegalStateError, KafkaError
from kafka.structs import OffsetAndMetadata

from consumers.batch import Record
from consumers.offsets import known_offsets
from consumers.positions import (
    DataLost,
    LogBounds,
    PositionStore,
    StartOver,
    StoredPosition,
    compare,
    record_digest,
)
from consumers.usage import UsageIngest
from domain.errors import DeadLettersUnavailable, PositionMoved, StaleVersion, StoreUnavailable
from domain.ports import PositionMove

log = logging.getLogger(__name__)

BATCH_RECORDS: Final = 2_000
BATCH_WINDOW_S: Final = 0.02
IDLE_POLL_S: Final = 0.2
HOUSEKEEPING_EVERY_S: Final = 1.0
OFFSETS_EVERY_S: Final = 5.0
PROOF_WITHIN_S: Final = 3.0
LEADER_RETRY_S: Final = 2.0
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MOST_S: Final = 5.0

Recoverable = (StoreUnavailable, StaleVersion, DeadLettersUnavailable, PositionMoved, KafkaError, OSError)


class Broker(Protocol):
    """Connections to Kafka, made anew after a failure."""

    def connect(self, topic: str, listener: ConsumerRebalanceListener) -> Any:
        """Return a `kafka.KafkaConsumer` subscribed to the topic, which exists.

        Raises:
            KafkaError: no broker answers.
        """

    def topic_id(self, topic: str) -> str:
        """Return the id of the topic's present incarnation.

        Raises:
            KafkaError: no broker answers, or the topic does not exist.
        """


class Partition(msgspec.Struct):
    """A partition that is ours: the log it belongs to and the next offset we charge."""

    topic_id: str
    next_offset: int
    check_digest: bytes | None
    gap_checked_at: int = -1
    prove_by: float = math.inf
    """Until when the record before the position must have shown up (monotonic clock)."""


class UsageConsumer:
    """Runs one `UsageIngest` on the partitions of one topic that Kafka's group assigns to this process."""

    def __init__(self, broker: Broker, positions: PositionStore, ingest: UsageIngest, topic: str) -> None:
        self.ingest = ingest
        self.topic = topic
        self.lost_partitions: dict[int, DataLost] = {}
        self.lag: dict[int, int] = {}
        self.failures = 0
        self._broker = broker
        self._positions = positions
        self._consumer: Any = None
        self._assignments = _Assignments()
        self._partitions: dict[int, Partition] = {}
        self._leaderless: dict[int, float] = {}
        self._housekeeping_due = 0.0
        self._offsets_due = 0.0
        self._backoff_s = BACKOFF_FIRST_S

    def run(self, stop: Event) -> None:
        """Consume until told to stop, then drain: what was taken is charged, nothing else is."""
        while not stop.is_set():
            try:
                self._connect()
                self._step()
                self._backoff_s = BACKOFF_FIRST_S
            except Recoverable as error:
                self._recover(error, stop)
        self._drain()

    def _connect(self) -> None:
        if self._consumer is None:
            self._consumer = self._broker.connect(self.topic, self._assignments)

    def _step(self) -> None:
        try:
            batch = self._take_batch()
        except CorruptRecordError as error:
            self._stop_unreadable(error)
            return
        taken_up = self._adopt_assignment()
        moves: list[PositionMove] = []
        records: list[Record] = []
        for topic_partition in sorted(batch, key=lambda tp: tp.partition):
            partition = topic_partition.partition
            if partition in taken_up:
                continue  # fetched before we put the reader in its place
            mine = self._expected(partition, batch[topic_partition])
            if mine:
                moves.append(self._move(partition, mine))
                records.extend(mine)
        if moves:
            self.ingest.submit(moves, records)
            for move in moves:
                self._partitions[move.partition].next_offset = move.next_offset
        else:
            self.ingest.flush()
        self._replace_unproven_logs()
        self._keep_house()

    def _take_batch(self) -> dict[TopicPartition, list[Record]]:
        """Poll until the batch is full, or its time is up."""
        batch: dict[TopicPartition, list[Record]] = {}
        room = BATCH_RECORDS
        wait_s = IDLE_POLL_S
        closes_at = 0.0
        while room > 0 and wait_s > 0:
            polled = self._consumer.poll(timeout_ms=max(1, int(wait_s * 1_000)), max_records=room)
            for topic_partition, records in polled.items():
                batch.setdefault(topic_partition, []).extend(records)
                room -= len(records)
            now = time.monotonic()
            if not polled:
                break
            closes_at = closes_at or now + BATCH_WINDOW_S
            wait_s = closes_at - now
        return batch

    def _stop_unreadable(self, error: CorruptRecordError) -> None:
        """Stop the partition whose next records cannot be read; the others go on."""
        assigned = self._consumer.assignment()
        self._partitions.clear()  # what is polled here is read again
        with suppress(KeyError, ValueError):  # partitions went meanwhile: the next poll tells again
            for topic_partition in sorted(assigned):
                self._consumer.pause(*assigned)
                self._consumer.resume(topic_partition)
                if not self._can_poll():
                    offset = self._consumer.position(topic_partition)
                    self.lost_partitions[topic_partition.partition] = DataLost(offset, offset + 1)
                    log.error("partition %d stopped: %s", topic_partition.partition, error)
            self._consumer.pause(*assigned)
            self._consumer.resume(*(tp for tp in assigned if tp.partition not in self.lost_partitions))

    def _can_poll(self) -> bool:
        try:
            self._consumer.poll(timeout_ms=1_000, max_records=1)
        except CorruptRecordError:
            return False
        return True

    # ----------------------------------------------------------------------------- partitions

    def _adopt_assignment(self) -> set[int]:
        """Let go of partitions that are not ours any more, take up new ones, and return the latter."""
        assigned = {tp.partition for tp in self._consumer.assignment()}
        fresh = self._assignments.take() & assigned
        known = self._partitions.keys() | self.lost_partitions.keys()
        for partition in fresh | (known - assigned):
            self._partitions.pop(partition, None)
            self.lost_partitions.pop(partition, None)
            self.lag.pop(partition, None)
        now = time.monotonic()
        self._leaderless = {partition: due for partition, due in self._leaderless.items() if due > now}
        unknown = assigned - self._partitions.keys() - self.lost_partitions.keys() - self._leaderless.keys()
        if unknown:
            self.ingest.flush()
            self._take_up(unknown)
        return unknown

    def _take_up(self, partitions: Iterable[int]) -> None:
        topic_id = self._broker.topic_id(self.topic)
        stored = self._positions.positions(self.topic)
        wanted = [TopicPartition(self.topic, partition) for partition in sorted(partitions)]
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
        self._partitions.pop(partition, None)
        self._leaderless[partition] = time.monotonic() + LEADER_RETRY_S
        log.warning("partition %d has no leader: it is looked at again in %.0f s", partition, LEADER_RETRY_S)

    def _start(
        self, topic_partition: TopicPartition, stored: StoredPosition | None, bounds: LogBounds
    ) -> None:
        partition = topic_partition.partition
        start = compare(stored, bounds)
        if isinstance(start, DataLost):
            self.lost_partitions[partition] = start
            with suppress(KeyError):  # it is not ours any more
                self._consumer.pause(topic_partition)
            log.error(
                "partition %d stopped: offsets %d to %d are gone from the log before they were charged",
                partition,
                start.position,
                start.earliest - 1,
            )
            return
        if isinstance(start, StartOver):
            if stored is not None:
                log.warning("partition %d is read again from its beginning: %s", partition, start.reason)
            self._start_over(topic_partition, stored, bounds)
            return
        prove_by = time.monotonic() + PROOF_WITHIN_S if start.doubtful else math.inf
        self._partitions[partition] = Partition(
            bounds.topic_id, start.offset, start.check_digest, prove_by=prove_by
        )
        # The record before the position is read once more to see that it is the one we charged.
        self._seek(topic_partition, start.offset - (1 if start.check_digest else 0))

    def _start_over(
        self, topic_partition: TopicPartition, stored: StoredPosition | None, bounds: LogBounds
    ) -> None:
        partition = topic_partition.partition
        self._positions.start_log(self.topic, partition, bounds.topic_id, bounds.earliest, stored)
        self._partitions[partition] = Partition(bounds.topic_id, bounds.earliest, None)
        self._seek(topic_partition, bounds.earliest)

    def _seek(self, topic_partition: TopicPartition, offset: int) -> None:
        # The client's own thread may give a partition up at any time; the next assignment tells us.
        with suppress(ValueError, KeyError):
            self._consumer.seek(topic_partition, offset)

    def _expected(self, partition: int, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records that come next; none where the log is not as expected."""
        ours = self._partitions.get(partition)
        if ours is None:
            return ()
        if ours.check_digest is not None:
            before, records = records[0], records[1:]
            other = before.offset == ours.next_offset - 1 and record_digest(before) != ours.check_digest
            shorter = before.offset < ours.next_offset - 1 and ours.prove_by < math.inf
            if other or shorter:
                self._replace_log(partition)
                return ()
            if before.offset >= ours.next_offset:
                records = [before, *records]
            ours.check_digest = None
        if not records or records[0].offset == ours.next_offset:
            return records
        if records[0].offset > ours.next_offset and ours.gap_checked_at == ours.next_offset:
            return records  # compaction or an aborted transaction left a hole: nothing was lost
        self._look_again(partition, ours)
        return ()

    def _replace_unproven_logs(self) -> None:
        now = time.monotonic()
        for partition, ours in list(self._partitions.items()):
            if ours.check_digest is not None and now > ours.prove_by:
                self._replace_log(partition)

    def _replace_log(self, partition: int) -> None:
        log.warning("partition %d is read again from its beginning: its records are others", partition)
        topic_partition = TopicPartition(self.topic, partition)
        self.ingest.flush()
        stored = self._positions.positions(self.topic).get(partition)
        earliest = known_offsets(self._consumer.beginning_offsets, [topic_partition]).get(topic_partition)
        if earliest is None:
            self._wait_for_leader(partition)
            return
        bounds = LogBounds(self._broker.topic_id(self.topic), earliest, earliest)
        self._start_over(topic_partition, stored, bounds)

    def _look_again(self, partition: int, ours: Partition) -> None:
        """Compare a partition with its stored position anew; a gap that is still there is then real."""
        self.ingest.flush()
        del self._partitions[partition]
        self._take_up([partition])
        again = self._partitions.get(partition)
        if again is not None and again.next_offset == ours.next_offset:
            again.gap_checked_at = again.next_offset

    def _move(self, partition: int, records: Sequence[Record]) -> PositionMove:
        ours = self._partitions[partition]
        last = records[-1]
        return PositionMove(
            self.topic,
            partition,
            ours.topic_id,
            ours.next_offset,
            last.offset + 1,
            record_digest(last),
        )

    # ----------------------------------------------------------------- housekeeping and failures

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now >= self._housekeeping_due:
            self.ingest.charge_parked()
            self.ingest.expire_parked()
            # A look at many parked messages may take long: spend a twentieth of the time on it at most.
            took_s = time.monotonic() - now
            self._housekeeping_due = now + max(HOUSEKEEPING_EVERY_S, 20 * took_s)
            self._measure_lag()
        if now >= self._offsets_due:
            self._offsets_due = now + OFFSETS_EVERY_S
            self.ingest.flush()
            self._commit_offsets(self._consumer.commit_async)
            self._notice_new_log()

    def _notice_new_log(self) -> None:
        """Look again at partitions whose topic was made anew, or whose loss an operator has accepted."""
        topic_id = self._broker.topic_id(self.topic)
        if self.lost_partitions:
            stored = self._positions.positions(self.topic)
            for partition, lost in list(self.lost_partitions.items()):
                at = stored.get(partition)
                if at is not None and (at.next_offset >= lost.earliest or at.topic_id != topic_id):
                    del self.lost_partitions[partition]
                    with suppress(KeyError):
                        self._consumer.resume(TopicPartition(self.topic, partition))
        if any(ours.topic_id != topic_id for ours in self._partitions.values()):
            self._partitions.clear()

    def _measure_lag(self) -> None:
        for partition, ours in self._partitions.items():
            highwater = None
            with suppress(IllegalStateError, KeyError):  # it is not ours any more
                highwater = self._consumer.highwater(TopicPartition(self.topic, partition))
            if highwater is not None:
                self.lag[partition] = max(0, highwater - ours.next_offset)

    def _commit_offsets(self, commit: Callable[[Mapping[Any, Any]], object]) -> None:
        offsets = {
            TopicPartition(self.topic, partition): OffsetAndMetadata(ours.next_offset, "", -1)
            for partition, ours in self._partitions.items()
        }
        if offsets:
            commit(offsets)

    def _recover(self, error: BaseException, stop: Event) -> None:
        """Forget what is not durable, wait, and begin again from the stored positions."""
        self.failures += 1
        log.warning("consumer interrupted, goes on in %.1f s: %s", self._backoff_s, error)
        self.ingest.reset()
        self._partitions.clear()
        if isinstance(error, KafkaError | OSError | DeadLettersUnavailable):
            self._disconnect()
        else:
            self._stay_in_group()
        stop.wait(self._backoff_s)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MOST_S)

    def _stay_in_group(self) -> None:
        """Poll without taking anything, so that a database restart costs no rebalance."""
        try:
            assigned = self._consumer.assignment()
            self._consumer.pause(*assigned)
            self._consumer.poll(timeout_ms=0)
            self._consumer.resume(*(tp for tp in assigned if tp.partition not in self.lost_partitions))
        except (KafkaError, OSError, KeyError):  # KeyError: the partitions changed while it looked
            self._disconnect()

    def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._assignments.take()
        self.lost_partitions.clear()
        if consumer is not None:
            _close(consumer)

    def _drain(self) -> None:
        if self._consumer is None:
            return
        try:
            self.ingest.flush()
            self._commit_offsets(self._consumer.commit)
        except Recoverable as error:
            log.warning(
                "stopped before everything was charged; the rest is charged on the next start: %s", error
            )
        self._disconnect()


class _Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
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


def _close(consumer: Any) -> None:
    try:
        consumer.close(autocommit=False)
    except (KafkaError, OSError) as error:  # leaving during a rebalance: the group notices by itself
        log.info("left the consumer group: %s", error)
