"""Real Apache Kafka that tests share: each has topics and groups of its own, and none stops it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.embedded.apache_kafka import ApacheKafkaCluster
from tests.servers import servers_folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[ApacheKafkaCluster]:
    """One broker for the whole run: to start one takes a processor five seconds."""
    with servers_folder() as folder, ApacheKafkaCluster(folder / "kafka") as cluster:
        yield cluster
