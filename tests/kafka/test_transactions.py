"""What a producer took back was never reported; what it committed is, whatever holes lie between."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaProducer

from infra.embedded.apache_kafka import ApacheKafkaCluster
from tests.integration.consumers.lab import Lab
from tests.integration.consumers.recount import read_books
from tests.integration.consumers.service import Service, create_topics, settings_for, wait_until
from tests.unit.consumers.records import usage_record

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def lab(migrated_database: str, service_database: str) -> Iterator[Lab]:
    lab = Lab(migrated_database, service_database)
    lab.open("org-1")
    yield lab
    lab.close()


def test_aborted_transactions_are_not_charged(
    lab: Lab, cluster: ApacheKafkaCluster, topic_name: Callable[[str], str]
) -> None:
    topic = topic_name("usage")
    settings = settings_for(cluster.bootstrap_servers, topic)
    create_topics(settings)
    with KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, transactional_id=f"pipeline-of-{topic}"
    ) as producer:
        producer.init_transactions()
        for number in range(10):
            producer.begin_transaction()
            record = usage_record(f"m-{number}", "org-1", 1)
            producer.send(topic, key=record.key, value=record.value, headers=list(record.headers))
            if number % 2:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
    with Service(settings, lab.service):
        # Only the log: it grows, and to load the organisation a moment later finds more.
        wait_until(lambda: len(read_books(lab.connection).charges) >= 5)
    assert lab.charged_ids() == [f"m-{number}" for number in range(0, 10, 2)]
