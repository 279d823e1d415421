"""Kafka connections, from settings: the consumer, the producer, and the topics there must be."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from consumers.publishing.ordered_producer import PRODUCER_OPTIONS
from infra.kafka.tolerant_records import accept_any_header_name
from infra.settings import Settings

CLIENT_ID = "credit-ledger"
FETCH_MAX_BYTES = 16 * 1024 * 1024
PARTITION_FETCH_MAX_BYTES = 2 * 1024 * 1024
ADMIN_TIMEOUT_MS = 10_000
BOOTSTRAP_TIMEOUT_MS = 5_000
REJOIN_POLL_MS = 500
DEAD_LETTER_MAX_BYTES = 16 * 1024 * 1024
COMPACTED = {"cleanup.policy": "compact"}


class Kafka:
    """See `consumers.usage.consumer.Broker` and `consumers.publishing.publisher.TopicBroker`.

    Every connection is made anew from the settings.

    Raises (all methods):
        KafkaError: no broker answers, or it refuses.
    """

    def __init__(self, settings: Settings, bootstrap_servers: str | None = None) -> None:
        self._settings = settings
        self._options = connection_options(settings, bootstrap_servers)
        self._admin: Any = None

    def connect(self, topic: str, listener: ConsumerRebalanceListener) -> Any:
        """Return a consumer of the group, subscribed to the topic, which is created if missing."""
        self.ensure_usage_topics()
        accept_any_header_name()
        settings = self._settings
        consumer = GroupConsumer(
            **self._options,
            group_id=settings.kafka_group_id,
            group_instance_id=settings.kafka_group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",  # what a producer took back was never reported
            session_timeout_ms=settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=settings.kafka_session_timeout_ms // 4,
            max_poll_records=5_000,
            fetch_max_bytes=FETCH_MAX_BYTES,
            max_partition_fetch_bytes=PARTITION_FETCH_MAX_BYTES,
        )
        consumer.subscribe([topic], listener=listener)
        return consumer

    def producer(self) -> Any:
        """Return a producer that loses nothing: acknowledged by all replicas, no repeats on retry."""
        return KafkaProducer(
            **self._options,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_request_size=DEAD_LETTER_MAX_BYTES,
        )

    def wave_producer(self) -> Any:
        """Return such a producer for a `consumers.publishing.ordered_producer.OrderedProducer`."""
        return KafkaProducer(**self._options, **PRODUCER_OPTIONS, acks="all", enable_idempotence=True)

    def topic_id(self, topic: str) -> str:
        """Return the id of the topic's present incarnation."""
        try:
            (description,) = self._admin_client().describe_topics([topic])
        except (KafkaError, OSError):
            self._close_admin_client()
            raise
        if description["error_code"]:
            raise UnknownTopicOrPartitionError(f"no topic {topic}")
        return str(description["topic_id"])

    def ensure_topics(self) -> None:
        """Create every topic that is missing."""
        self.ensure_usage_topics()
        self.ensure_published_topics()

    def ensure_usage_topics(self) -> None:
        """Create the usage topic and its dead-letter topic where they are missing."""
        settings = self._settings
        factor = settings.kafka_replication_factor
        self._ensure(
            NewTopic(settings.usage_topic, settings.usage_partitions, factor),
            NewTopic(settings.dead_letter_topic, 1, factor),
        )

    def ensure_published_topics(self) -> None:
        """Create the topics of events and balances where they are missing, partitioned as usage is."""
        settings = self._settings
        partitions, factor = settings.usage_partitions, settings.kafka_replication_factor
        self._ensure(
            NewTopic(settings.events_topic, partitions, factor),
            NewTopic(settings.balances_topic, partitions, factor, topic_configs=COMPACTED),
        )

    def _ensure(self, *topics: NewTopic) -> None:
        if not self._settings.kafka_create_topics:
            return
        for topic in topics:
            try:
                with suppress(TopicAlreadyExistsError):
                    self._admin_client().create_topics([topic])
            except (KafkaError, OSError):
                self._close_admin_client()
                raise

    def close(self) -> None:
        """Close the administrative connection."""
        self._close_admin_client()

    def _admin_client(self) -> Any:
        if self._admin is None:
            self._admin = KafkaAdminClient(**self._options, request_timeout_ms=ADMIN_TIMEOUT_MS)
        return self._admin

    def _close_admin_client(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(Exception):
                admin.close()


class GroupConsumer(KafkaConsumer):  # type: ignore[misc]
    """A consumer that finishes every rebalance it began.

    kafka-python 3.0.12 joins anew when a topic's partitions change, but remembers that only as a difference
    which the join itself removes (Java had this as KAFKA-9815). Where the answer comes between two polls,
    nobody takes it: the member gets no partitions and sends no heartbeats for ever.
    """

    def poll(self, timeout_ms: int = 0, **options: Any) -> Any:
        """Poll, and wait for the answer to a join that is under way."""
        if self._coordinator.rejoining:
            self._coordinator.request_rejoin()
            timeout_ms = max(timeout_ms, REJOIN_POLL_MS)  # an answer between two polls starts it over
        return super().poll(timeout_ms, **options)


def connection_options(settings: Settings, bootstrap_servers: str | None = None) -> dict[str, Any]:
    """Return what every kafka-python client needs to connect."""
    servers = bootstrap_servers or settings.kafka_bootstrap_servers or ""
    options: dict[str, Any] = {
        "bootstrap_servers": servers.split(","),
        "client_id": CLIENT_ID,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "security_protocol": settings.kafka_security_protocol,
        "sasl_mechanism": settings.kafka_sasl_mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": _secret(settings.kafka_sasl_password),
        "ssl_cafile": _path(settings.kafka_ssl_cafile),
        "ssl_certfile": _path(settings.kafka_ssl_certfile),
        "ssl_keyfile": _path(settings.kafka_ssl_keyfile),
        "ssl_password": _secret(settings.kafka_ssl_password),
    }
    return {name: value for name, value in options.items() if value is not None}


def _secret(value: Any) -> str | None:
    return None if value is None else str(value.get_secret_value())


def _path(value: Any) -> str | None:
    return None if value is None else str(value)


class RepeatedLogFilter(logging.Filter):
    """Lets a logger say the same thing once a period: a lost broker floods the log otherwise."""

    def __init__(self, period_s: float) -> None:
        super().__init__()
        self._period_s = period_s
        self._last_logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is news."""
        what = f"{record.name}{record.levelno}{record.msg}"
        before = self._last_logged.get(what)
        if before is not None and record.created - before < self._period_s:
            return False
        self._last_logged[what] = record.created
        return True
