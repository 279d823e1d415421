"""The publisher on real Apache Kafka: it creates its topics, and publishes again when they are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from infra.embedded.apache_kafka import ApacheKafkaCluster
from infra.settings import Settings
from tests.integration.consumers.ingest_environment import IngestEnvironment
from tests.integration.consumers.publishing.published_feeds import (
    PublishedFeeds,
    PublisherThread,
    publishing_settings,
    recreate_topics,
)
from tests.integration.consumers.service import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def settings(cluster: ApacheKafkaCluster, topic_name: Callable[[str], str]) -> Settings:
    return publishing_settings(cluster.bootstrap_servers, topic_name)


@pytest.fixture
def ingest_env(migrated_database: str, service_database: str) -> Iterator[IngestEnvironment]:
    ingest_env = IngestEnvironment(migrated_database, service_database)
    yield ingest_env
    ingest_env.close()


def cleanup_policy(settings: Settings, topic: str) -> str:
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        described = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all"
        )
    return str(described["topic"][topic]["cleanup.policy"]["value"])


def test_everything_is_published_and_balances_are_compacted(
    ingest_env: IngestEnvironment, settings: Settings
) -> None:
    feeds = PublishedFeeds(settings, ingest_env.connection, ingest_env.service)
    ingest_env.open("org-1", "org-2")
    for _ in range(1_500):
        ingest_env.grant("org-1")
    feeds.project()
    with PublisherThread(settings, ingest_env.service):
        wait_until(feeds.published)
        ingest_env.grant("org-2")
        feeds.project()
        wait_until(feeds.published)
    feeds.assert_published()
    assert cleanup_policy(settings, settings.balances_topic) == "compact"
    assert cleanup_policy(settings, settings.events_topic) == "delete"


def test_everything_is_published_again_to_recreated_topics(
    ingest_env: IngestEnvironment, settings: Settings
) -> None:
    feeds = PublishedFeeds(settings, ingest_env.connection, ingest_env.service)
    ingest_env.open("org-1", "org-2")
    feeds.project()
    with PublisherThread(settings, ingest_env.service):
        wait_until(feeds.published)
        seen = {feeds.topic_id(settings.events_topic), feeds.topic_id(settings.balances_topic)}
        recreate_topics(settings)
        wait_until(lambda: feeds.topic_id(settings.events_topic) not in seen)
        wait_until(lambda: feeds.topic_id(settings.balances_topic) not in seen)
        ingest_env.grant("org-1")
        feeds.project()
        wait_until(feeds.published)
    feeds.assert_published(repeats=True)
    assert cleanup_policy(settings, settings.balances_topic) == "compact"
