"""The embedded Kafka broker keeps its address."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient

from infra.embedded.broker import EmbeddedBroker
from infra.embedded.files import is_free
from infra.embedded.processes import processes_in

Launch = Callable[[str, Path], "subprocess.Popen[str]"]


@pytest.fixture
def server(root: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(root) as server:
        yield server


def create_topic(address: str, topic: str) -> str:
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        admin.create_topics({topic: {"num_partitions": 3, "replication_factor": 1}})
        (described,) = admin.describe_topics([topic])
        assert len(described["partitions"]) == 3
        return str(described["topic_id"])


def topics(address: str) -> list[str]:
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        return list(admin.list_topics())


def test_a_message_passes_through(broker: str, topic_name: Callable[[str], str]) -> None:
    topic = topic_name("usage")
    create_topic(broker, topic)
    with KafkaProducer(bootstrap_servers=broker) as producer:
        producer.send(topic, key=b"org-1", value=b"hello").get(timeout=10)
    consumer = KafkaConsumer(
        topic, bootstrap_servers=broker, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    )
    try:
        assert next(consumer).value == b"hello"
    finally:
        consumer.close()


def test_it_listens_on_loopback_alone(server: EmbeddedBroker) -> None:
    listening = [c.laddr for c in psutil.Process(server.pid).net_connections("inet") if c.status == "LISTEN"]
    assert listening == [("127.0.0.1", server.port)]


def test_a_restart_keeps_the_address_and_forgets_the_rest(server: EmbeddedBroker) -> None:
    address = server.address
    first_id = create_topic(address, "usage")
    server.stop()

    assert server.start() == address
    assert topics(address) == []
    assert create_topic(address, "usage") != first_id


def test_a_killed_broker_comes_back_at_its_address(server: EmbeddedBroker) -> None:
    address, pid = server.address, server.pid
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)], timeout=10)

    assert not server.is_running()
    assert server.ensure_running() == address
    assert topics(address) == []


def test_the_broker_of_a_killed_launcher_is_adopted_with_its_data(root: Path, launch: Launch) -> None:
    launcher = launch("broker", root)
    assert launcher.stdout is not None
    address = launcher.stdout.readline().strip()
    create_topic(address, "usage")
    launcher.kill()
    launcher.wait(timeout=10)

    with EmbeddedBroker(root) as heir:
        assert heir.address == address
        assert topics(address) == ["usage"]
    assert processes_in(root / "run", "tansu") == []


def test_stop_leaves_nothing_running(server: EmbeddedBroker) -> None:
    port = server.port
    server.stop()

    assert processes_in(server.root / "run", "tansu") == []
    assert is_free(port)
