"""Runs the usage consumer in a thread, as a process would, writes its input, and reads its output."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from itertools import islice
from threading import Event, Thread
from typing import Any, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from consumers.usage.consumer import UsageConsumer
from infra.kafka.connections import Kafka
from infra.service.composition import usage_consumer
from infra.settings import Settings
from tests.unit.usage.records import KafkaRecord

WITHIN_S = 40.0
STOPS_WITHIN_S = 20.0

logging.getLogger("kafka").setLevel(logging.CRITICAL)  # a lost broker floods the log


def settings_for(broker: str, topic: str, *, partitions: int = 1) -> Settings:
    return Settings(
        kafka_bootstrap_servers=broker,
        kafka_group_id=f"group-of-{topic}",
        usage_topic=topic,
        usage_partitions=partitions,
    )


class InThread:
    """A part of the service in its own thread. `stop` raises the error that ended it, if any."""

    def __init__(self, name: str) -> None:
        self._stop = Event()
        self._ready = Event()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(WITHIN_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(STOPS_WITHIN_S)
        assert not self._thread.is_alive()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def work(self) -> None:
        """Set `_ready` when it is ready, and work until `_stop` is set."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self._error = error
            self._ready.set()


class Service(InThread):
    """A usage consumer in a thread."""

    def __init__(self, settings: Settings, database: str) -> None:
        super().__init__("usage-consumer")
        self._settings = settings
        self._database = database
        self.consumer: UsageConsumer
        self.batches: list[int] = []

    @property
    def owned(self) -> set[int]:
        """The partitions it is assigned."""
        return self.consumer.owned

    def work(self) -> None:
        with usage_consumer(self._settings, self._database) as consumer:
            self.consumer = consumer
            self._count_batches(consumer)
            self._ready.set()
            consumer.run(self._stop)

    def _count_batches(self, consumer: UsageConsumer) -> None:
        submit = consumer.ingest.submit

        def counted(moves: Any, records: Any) -> None:
            self.batches.append(len(records))
            submit(moves, records)

        consumer.ingest.submit = counted  # type: ignore[method-assign]


def create_topics(settings: Settings) -> str:
    """Create the usage topic and its dead-letter topic, and return the id of the former."""
    kafka = Kafka(settings)
    try:
        kafka.ensure_topics()
        return kafka.topic_id(settings.usage_topic)
    finally:
        kafka.close()


def delete_topic(settings: Settings) -> None:
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        admin.delete_topics([settings.usage_topic])


def publish(settings: Settings, records: Iterable[KafkaRecord], *, partition: int | None = None) -> None:
    """Write records to the usage topic. Each organisation has its own partition unless one is given."""
    with KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all") as producer:
        sent = [
            producer.send(
                settings.usage_topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                partition=partition,
            )
            for record in records
        ]
        for future in sent:
            future.get(timeout=WITHIN_S)


def dead_letters(settings: Settings, count: int) -> list[Any]:
    """Return the first records of the dead-letter topic."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, consumer_timeout_ms=int(WITHIN_S * 1_000)
    )
    try:
        partition = TopicPartition(settings.dead_letter_topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        return list(islice(consumer, count))
    finally:
        consumer.close()


def committed(settings: Settings, partitions: int) -> dict[int, int | None]:
    """Return the group's committed offsets in Kafka."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, group_id=settings.kafka_group_id
    )
    try:
        return {
            number: consumer.committed(TopicPartition(settings.usage_topic, number))
            for number in range(partitions)
        }
    finally:
        consumer.close()


def wait_until(reached: Callable[[], object], within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline, "the wait timed out"
        time.sleep(0.02)
