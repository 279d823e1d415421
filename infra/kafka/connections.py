"""Kafka connections from the settings: consumer, producers, and creation of topics."""

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
    """Implements `consumers.usage.consumer.Broker` and `consumers.publishing.publisher.TopicBroker`.

    Each consumer and producer uses a new connection.

    Raises (all methods):
        KafkaError: no broker answers, or the broker refuses the request.
    """

    def __init__(self, settings: Settings, bootstrap_servers: str | None = None) -> None:
        self._settings = settings
        self._options = connection_options(settings, bootstrap_servers)
        self._admin: Any = None

    def connect(self, topic: str, listener: ConsumerRebalanceListener) -> Any:
        """Return a consumer of the group that is subscribed to the topic.

        Create the topic if it is missing.
        """
        self.ensure_usage_topics()
        accept_any_header_name()
        settings = self._settings
        consumer = GroupConsumer(
            **self._options,
            group_id=settings.kafka_group_id,
            group_instance_id=settings.kafka_group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",  # ignore messages of aborted transactions
            session_timeout_ms=settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=settings.kafka_session_timeout_ms // 4,
            max_poll_records=5_000,
            fetch_max_bytes=FETCH_MAX_BYTES,
            max_partition_fetch_bytes=PARTITION_FETCH_MAX_BYTES,
        )
        consumer.subscribe([topic], listener=listener)
        return consumer

    def producer(self) -> Any:
        """Return an idempotent producer that waits for the acknowledgement of all replicas."""
        return KafkaProducer(
            **self._options,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_request_size=DEAD_LETTER_MAX_BYTES,
        )

    def wave_producer(self) -> Any:
        """Return the same for a `consumers.publishing.ordered_producer.OrderedProducer`."""
        return KafkaProducer(**self._options, **PRODUCER_OPTIONS, acks="all", enable_idempotence=True)

    def topic_id(self, topic: str) -> str:
        """Return the current id of the topic. A deleted and recreated topic gets a new id."""
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
        """Create the usage topic and its dead-letter topic if they are missing."""
        settings = self._settings
        factor = settings.kafka_replication_factor
        self._ensure(
            NewTopic(settings.usage_topic, settings.usage_partitions, factor),
            NewTopic(settings.dead_letter_topic, 1, factor),
        )

    def ensure_published_topics(self) -> None:
        """Create the topics of events and balances if they are missing, with the partitions of usage."""
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
    """A consumer that completes every rebalance it starts.

    This works around a bug of kafka-python 3.0.12. The client rejoins the group when a topic's partitions
    change, but the join removes the difference that triggered it (KAFKA-9815 in the Java client). If the
    response arrives between two polls, the client ignores it. The member then never gets partitions and never
    sends heartbeats.
    """

    def poll(self, timeout_ms: int = 0, **options: Any) -> Any:
        """Poll. During a rejoin, wait for the broker's response."""
        if self._coordinator.rejoining:
            self._coordinator.request_rejoin()
            timeout_ms = max(timeout_ms, REJOIN_POLL_MS)  # a response between two polls restarts the join
        return super().poll(timeout_ms, **options)


def connection_options(settings: Settings, bootstrap_servers: str | None = None) -> dict[str, Any]:
    """Return the connection options of a kafka-python client."""
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
    """Passes each message once per period. Otherwise a lost broker floods the log."""

    def __init__(self, period_s: float) -> None:
        super().__init__()
        self._period_s = period_s
        self._last_logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the same message was not logged within the period."""
        message = f"{record.name}{record.levelno}{record.msg}"
        before = self._last_logged.get(message)
        if before is not None and record.created - before < self._period_s:
            return False
        self._last_logged[message] = record.created
        return True
