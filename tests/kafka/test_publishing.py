"""The publisher on real Apache Kafka: how it makes its topics, and what it does when they are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from infra.embedded.apache_kafka import ApacheKafkaCluster
from infra.settings import Settings
from tests.integration.consumers.lab import Lab
from tests.integration.consumers.service import wait_until
from tests.integration.consumers.telling import Readers, Telling, make_anew, publishing_settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def settings(cluster: ApacheKafkaCluster, topic_name: Callable[[str], str]) -> Settings:
    return publishing_settings(cluster.bootstrap_servers, topic_name)


@pytest.fixture
def lab(migrated_database: str, service_database: str) -> Iterator[Lab]:
    lab = Lab(migrated_database, service_database)
    yield lab
    lab.close()


def cleanup_policy(settings: Settings, topic: str) -> str:
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        described = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all"
        )
    return str(described["topic"][topic]["cleanup.policy"]["value"])


def test_everything_is_told_and_balances_are_compacted(lab: Lab, settings: Settings) -> None:
    readers = Readers(settings, lab.connection, lab.service)
    lab.open("org-1", "org-2")
    for _ in range(1_500):
        lab.grant("org-1")
    readers.project()
    with Telling(settings, lab.service):
        wait_until(readers.told)
        lab.grant("org-2")
        readers.project()
        wait_until(readers.told)
    readers.assert_told()
    assert cleanup_policy(settings, settings.balances_topic) == "compact"
    assert cleanup_policy(settings, settings.events_topic) == "delete"


def test_topics_made_anew_are_told_everything_again(lab: Lab, settings: Settings) -> None:
    readers = Readers(settings, lab.connection, lab.service)
    lab.open("org-1", "org-2")
    readers.project()
    with Telling(settings, lab.service):
        wait_until(readers.told)
        seen = {readers.topic_id(settings.events_topic), readers.topic_id(settings.balances_topic)}
        make_anew(settings)
        wait_until(lambda: readers.topic_id(settings.events_topic) not in seen)
        wait_until(lambda: readers.topic_id(settings.balances_topic) not in seen)
        lab.grant("org-1")
        readers.project()
        wait_until(readers.told)
    readers.assert_told(repeats=True)
    assert cleanup_policy(settings, settings.balances_topic) == "compact"
