"""The loop of the usage consumer: poll, batch, charge, and recover from failures.

Kafka's consumer group assigns the partitions. The positions in them are in the database only
(`consumers.usage.partitions`). Offsets are committed to Kafka only for lag monitoring.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, Final, Protocol

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.errors import CorruptRecordError, KafkaError

from consumers.usage.batch import Record
from consumers.usage.ingest import UsageIngest
from consumers.usage.partitions import Assignments, Partitions
from consumers.usage.ports import PositionMove
from consumers.usage.positions import DataLost, PositionStore
from domain.shared.backoff import Backoff
from domain.shared.errors import (
    CheckpointConflict,
    DeadLettersUnavailable,
    StoreUnavailable,
    VersionConflict,
)

log = logging.getLogger(__name__)

BATCH_RECORDS: Final = 2_000
BATCH_WINDOW_S: Final = 0.02
IDLE_POLL_S: Final = 0.2
HOUSEKEEPING_EVERY_S: Final = 1.0
OFFSETS_EVERY_S: Final = 5.0
BACKOFF_INITIAL_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0

Recoverable = (
    StoreUnavailable,
    VersionConflict,
    DeadLettersUnavailable,
    CheckpointConflict,
    KafkaError,
    OSError,
)


class Broker(Protocol):
    """Connections to Kafka. After a failure, the consumer connects again."""

    def connect(self, topic: str, listener: ConsumerRebalanceListener) -> Any:
        """Return a `kafka.KafkaConsumer` subscribed to the existing topic.

        Raises:
            KafkaError: no broker responds.
        """

    def topic_id(self, topic: str) -> str:
        """Return the id of the topic's current incarnation.

        Raises:
            KafkaError: no broker responds, or the topic does not exist.
        """


class UsageConsumer:
    """Runs one `UsageIngest` on the partitions of one topic that Kafka's group assigns to this process."""

    def __init__(self, broker: Broker, positions: PositionStore, ingest: UsageIngest, topic: str) -> None:
        self.ingest = ingest
        self.topic = topic
        self.failures = 0
        self._broker = broker
        self._positions = positions
        self._consumer: Any = None
        self._partitions: Partitions | None = None
        self._housekeeping_due = 0.0
        self._offsets_due = 0.0
        self._backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)

    def run(self, stop: Event) -> None:
        """Consume until `stop` is set. Then finish the submitted batches, and leave the group."""
        while not stop.is_set():
            try:
                self._consume_batch(self._connect())
                self._backoff.reset()
            except Recoverable as error:
                self._recover(error, stop)
        self._drain()

    @property
    def lost_partitions(self) -> Mapping[int, DataLost]:
        """Stopped partitions, whose records are lost or unreadable."""
        partitions = self._partitions  # other threads read this property
        return {} if partitions is None else partitions.lost

    @property
    def lag(self) -> Mapping[int, int]:
        """The lag of each partition, in records."""
        partitions = self._partitions
        return {} if partitions is None else partitions.lag

    @property
    def owned(self) -> set[int]:
        """The partitions that are read from their stored positions."""
        partitions = self._partitions
        return set() if partitions is None else partitions.owned

    def _connect(self) -> Partitions:
        if self._partitions is None:
            assignments = Assignments()
            self._consumer = self._broker.connect(self.topic, assignments)
            self._partitions = Partitions(
                self._consumer,
                assignments,
                topic=self.topic,
                topic_id=self._broker.topic_id,
                positions=self._positions,
                flush=self.ingest.flush,
            )
        return self._partitions

    def _consume_batch(self, partitions: Partitions) -> None:
        try:
            batch = self._take_batch()
        except CorruptRecordError as error:
            partitions.stop_unreadable(error)
            return
        acquired = partitions.sync_assignment()
        moves: list[PositionMove] = []
        records: list[Record] = []
        for topic_partition in sorted(batch, key=lambda tp: tp.partition):
            partition = topic_partition.partition
            if partition in acquired:
                continue  # fetched before the seek to the stored position
            next_records = partitions.next_records(partition, batch[topic_partition])
            if next_records:
                moves.append(partitions.move(partition, next_records))
                records.extend(next_records)
        if moves:
            self.ingest.submit(moves, records)
            partitions.advance(moves)
        else:
            self.ingest.flush()
        partitions.restart_unproven_logs()
        self._run_housekeeping(partitions)

    def _take_batch(self) -> dict[TopicPartition, list[Record]]:
        """Poll until the batch is full or its time window ends."""
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

    def _run_housekeeping(self, partitions: Partitions) -> None:
        now = time.monotonic()
        if now >= self._housekeeping_due:
            self.ingest.charge_parked()
            self.ingest.expire_parked()
            # Checking many parked messages can be slow: spend at most a twentieth of the time on it.
            took_s = time.monotonic() - now
            self._housekeeping_due = now + max(HOUSEKEEPING_EVERY_S, 20 * took_s)
            partitions.measure_lag()
        if now >= self._offsets_due:
            self._offsets_due = now + OFFSETS_EVERY_S
            self.ingest.flush()
            _commit(partitions, self._consumer.commit_async)
            partitions.detect_new_topic()

    def _recover(self, error: BaseException, stop: Event) -> None:
        """Drop uncommitted state, wait, and resume at the stored positions."""
        self.failures += 1
        log.warning("consumer interrupted, resuming in %.1f s: %s", self._backoff.next_s, error)
        self.ingest.reset()
        if isinstance(error, KafkaError | OSError | DeadLettersUnavailable):
            self._disconnect()
        else:
            self._stay_in_group()
        stop.wait(self._backoff.advance())

    def _stay_in_group(self) -> None:
        """Poll without fetching records, so that a database restart causes no rebalance."""
        if self._partitions is None:
            return
        self._partitions.reset()
        try:
            self._partitions.poll_paused()
        except (KafkaError, OSError, KeyError):  # KeyError: the assignment changed during the poll
            self._disconnect()

    def _disconnect(self) -> None:
        consumer, self._consumer, self._partitions = self._consumer, None, None
        if consumer is not None:
            _close(consumer)

    def _drain(self) -> None:
        if self._partitions is None:
            return
        try:
            self.ingest.flush()
            _commit(self._partitions, self._consumer.commit)
        except Recoverable as error:
            log.warning("stopped before all records were charged; the next start charges the rest: %s", error)
        self._disconnect()


def _commit(partitions: Partitions, commit: Callable[[Mapping[Any, Any]], object]) -> None:
    offsets = partitions.offsets()
    if offsets:
        commit(offsets)


def _close(consumer: Any) -> None:
    try:
        consumer.close(autocommit=False)
    except (KafkaError, OSError) as error:  # left during a rebalance: the group detects it
        log.info("left the consumer group: %s", error)
