"""Messages of aborted transactions are ignored; committed ones are charged, despite gaps in the offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaProducer

from infra.embedded.apache_kafka import ApacheKafkaCluster
from tests.integration.consumers.ingest_environment import IngestEnvironment
from tests.integration.consumers.recount import recount_ledger
from tests.integration.consumers.service import Service, create_topics, settings_for, wait_until
from tests.unit.usage.records import usage_record

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def ingest_env(migrated_database: str, service_database: str) -> Iterator[IngestEnvironment]:
    ingest_env = IngestEnvironment(migrated_database, service_database)
    ingest_env.open("org-1")
    yield ingest_env
    ingest_env.close()


def test_aborted_transactions_are_not_charged(
    ingest_env: IngestEnvironment, cluster: ApacheKafkaCluster, topic_name: Callable[[str], str]
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
    with Service(settings, ingest_env.service):
        # Compare only the log: it grows, and a later load of the organisation would contain more.
        wait_until(lambda: len(recount_ledger(ingest_env.connection).charges) >= 5)
    assert ingest_env.charged_ids() == [f"m-{number}" for number in range(0, 10, 2)]
