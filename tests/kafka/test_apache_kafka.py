"""Real Apache Kafka: durability and replication, which the embedded broker does not have."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient

from infra.embedded.apache_kafka import DEFAULT_JARS, ApacheKafkaCluster
from infra.embedded.errors import EmbeddedServerError, MissingToolError
from tests.servers import servers_folder

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def single() -> Iterator[ApacheKafkaCluster]:
    with servers_folder() as folder, ApacheKafkaCluster(folder / "kafka") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def trio() -> Iterator[ApacheKafkaCluster]:
    with servers_folder() as folder, ApacheKafkaCluster(folder / "kafka", brokers=3) as cluster:
        yield cluster


def create_topic(cluster: ApacheKafkaCluster, topic: str) -> None:
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers) as admin:
        admin.create_topics({topic: {"num_partitions": 3}})
        admin.wait_for_topics([topic])


def producer_for(cluster: ApacheKafkaCluster) -> KafkaProducer:
    return KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, acks="all", delivery_timeout_ms=60_000)


def send(producer: KafkaProducer, topic: str, numbers: range) -> None:
    """Send numbers as messages and wait until all are acknowledged."""
    futures = [producer.send(topic, key=b"%d" % number, value=b"%d" % number) for number in numbers]
    for future in futures:
        future.get(timeout=60)


def read(cluster: ApacheKafkaCluster, topic: str, count: int) -> list[int]:
    """Return the first `count` numbers of a topic, or fewer if no more come."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=cluster.bootstrap_servers,
        auto_offset_reset="earliest",
        consumer_timeout_ms=15_000,
    )
    try:
        return sorted(int(message.value) for _, message in zip(range(count), consumer, strict=False))
    finally:
        consumer.close()


def test_messages_survive_a_restart_at_the_same_address(
    single: ApacheKafkaCluster, topic_name: Callable[[str], str]
) -> None:
    topic, address = topic_name("usage"), single.bootstrap_servers
    create_topic(single, topic)
    with producer_for(single) as producer:
        send(producer, topic, range(100))
    single.stop()

    assert single.start() == address
    assert read(single, topic, 100) == list(range(100))


def test_a_second_owner_is_refused(single: ApacheKafkaCluster) -> None:
    with pytest.raises(EmbeddedServerError, match="another process"):
        ApacheKafkaCluster(single.root).start()
    assert single.failed_brokers() == {}


def test_three_brokers_survive_the_loss_of_one(
    trio: ApacheKafkaCluster, topic_name: Callable[[str], str]
) -> None:
    topic = topic_name("usage")
    create_topic(trio, topic)
    with producer_for(trio) as producer:
        send(producer, topic, range(500))
        trio.kill(1)
        assert list(trio.failed_brokers()) == [1]
        send(producer, topic, range(500, 1_000))
    assert read(trio, topic, 1_000) == list(range(1_000))

    trio.start_broker(1)
    assert trio.failed_brokers() == {}


def test_it_runs_in_the_foreground_until_it_is_stopped() -> None:
    with servers_folder() as folder:
        command = [sys.executable, "-m", "infra.embedded.apache_kafka", "--root", folder / "kafka"]
        with subprocess.Popen(
            [*command, "--jars", DEFAULT_JARS], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("127.0.0.1:")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        assert list(ApacheKafkaCluster(folder / "kafka").failed_brokers()) == [1]


def test_an_orphaned_cluster_is_replaced_and_its_data_is_kept(topic_name: Callable[[str], str]) -> None:
    topic = topic_name("usage")
    with servers_folder() as folder:
        command = [sys.executable, "-m", "infra.embedded.apache_kafka", "--root", folder / "kafka"]
        with subprocess.Popen(
            [*command, "--jars", DEFAULT_JARS], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            cluster = ApacheKafkaCluster(folder / "kafka")
            create_topic(cluster, topic)
            with producer_for(cluster) as producer:
                send(producer, topic, range(10))
            os.kill(process.pid, signal.SIGKILL)
        with cluster:
            assert cluster.bootstrap_servers == address
            assert read(cluster, topic, 10) == list(range(10))


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="needs Java 17 and Maven"):
        ApacheKafkaCluster(tmp_path / "kafka").start()
