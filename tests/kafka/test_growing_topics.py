"""A topic gets more partitions while its consumer is running."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions

from infra.embedded.apache_kafka import ApacheKafkaCluster
from infra.kafka.connections import Kafka
from infra.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ASSIGNED_WITHIN_S = 30.0


class NoListener(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked: object) -> None:
        pass

    def on_partitions_assigned(self, assigned: object) -> None:
        pass


def test_a_busy_consumer_gets_new_partitions(
    cluster: ApacheKafkaCluster, topic_name: Callable[[str], str]
) -> None:
    """The group's response arrives while the consumer works between two polls: it must not be lost."""
    topic = topic_name("usage")
    settings = Settings(
        kafka_bootstrap_servers=cluster.bootstrap_servers,
        kafka_group_id=f"group-of-{topic}",
        usage_topic=topic,
        usage_partitions=1,
    )
    kafka = Kafka(settings)
    consumer = kafka.connect(topic, NoListener())
    try:
        for count in range(1, 6):
            with KafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers) as admin:
                if count > 1:
                    admin.create_partitions({topic: NewPartitions(count)})
            wanted = {TopicPartition(topic, number) for number in range(count)}
            deadline = time.monotonic() + ASSIGNED_WITHIN_S
            while consumer.assignment() != wanted:
                assert time.monotonic() < deadline, f"only {consumer.assignment()} of {count} partitions"
                consumer.poll(timeout_ms=5)
                consumer.topics()  # refreshes its metadata now, not in five minutes
                time.sleep(0.05)
    finally:
        consumer.close(autocommit=False)
        kafka.close()
