"""A real Apache Kafka that tests share. Each test has its own topics and groups; none stops the broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.embedded.apache_kafka import ApacheKafkaCluster
from tests.servers import servers_folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[ApacheKafkaCluster]:
    """One broker for the whole run: a start takes five seconds of CPU."""
    with servers_folder() as folder, ApacheKafkaCluster(folder / "kafka") as cluster:
        yield cluster
