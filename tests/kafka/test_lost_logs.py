"""Changes of a log that is not read: records deleted by retention, and a recreated topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

from infra.embedded.apache_kafka import ApacheKafkaCluster
from infra.embedded.files import pick_free_port
from infra.embedded.postgres import EmbeddedPostgres
from tests.e2e.ledger_writer import LedgerWriter
from tests.e2e.malformed_messages import structured
from tests.e2e.pipeline_environment import PipelineEnvironment, Publisher, running_pipeline
from tests.e2e.processes import run_command
from tests.e2e.traffic import Organisation, Outgoing
from tests.servers import FAST

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NOTICED_WITHIN_S = 40.0
"""The consumer checks for a new log every five seconds; the client's metadata may take longer."""


@pytest.fixture(scope="module")
def postgres(servers_root: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(servers_root / "lost-logs-postgres", settings=FAST) as server:
        yield server


@pytest.fixture
def pipeline_env(
    cluster: ApacheKafkaCluster, postgres: EmbeddedPostgres, tmp_path: Path, topic_name: Callable[[str], str]
) -> PipelineEnvironment:
    return PipelineEnvironment(
        postgres, cluster.bootstrap_servers, topic_name("usage"), tmp_path, partitions=2
    )


@pytest.fixture
def publisher(pipeline_env: PipelineEnvironment) -> Iterator[Publisher]:
    with running_pipeline(pipeline_env) as publisher:
        ledger_writer = LedgerWriter(pipeline_env.database_url, seed=1)
        try:
            names = [organisation_of(pipeline_env, partition) for partition in range(pipeline_env.partitions)]
            ledger_writer.open([Organisation(name, "UTC", "USD", 0, "at the start") for name in names])
        finally:
            ledger_writer.close()
        yield publisher


def organisation_of(pipeline_env: PipelineEnvironment, partition: int) -> str:
    """Return the organisation of a partition. The topic's name makes it unique per test."""
    return f"{pipeline_env.topic}-{partition}"


def messages(pipeline_env: PipelineEnvironment, partition: int, numbers: range) -> list[Outgoing]:
    """Return numbered messages of the partition's organisation, with one photo each."""
    return [
        Outgoing(
            partition,
            *structured(
                {
                    "specversion": "1.0",
                    "id": str(number),
                    "source": f"/{pipeline_env.topic}/{partition}",
                    "type": "photo_processing.usage_reported.v1",
                    "subject": organisation_of(pipeline_env, partition),
                    "time": "2026-11-22T09:15:00Z",
                    "data": {
                        "run_id": "run-88",
                        "usage_type": "photo_processing",
                        "photos": 1,
                        "ai_search": True,
                        "event": {"id": 1042, "name": "City Marathon"},
                    },
                }
            ),
        )
        for number in numbers
    ]


def charged(pipeline_env: PipelineEnvironment, partition: int) -> list[int]:
    """Return the numbers of the charged messages of a partition's organisation, in order."""
    events = pipeline_env.query(
        """
        SELECT convert_from(charge.state, 'UTF8')::jsonb ->> 2
        FROM ledger.events AS charge JOIN ledger.events AS opened USING (originator_id)
        WHERE charge.topic = 'usage_charged.v1' AND opened.topic = 'organisation_opened.v1'
            AND convert_from(opened.state, 'UTF8')::jsonb ->> 3 = %s
        ORDER BY charge.originator_version
        """,
        organisation_of(pipeline_env, partition),
    )
    return [int(message_id) for (message_id,) in events]


def send(publisher: Publisher, records: list[Outgoing]) -> None:
    publisher.send(records)
    publisher.settle()


def wait_for_positions(pipeline_env: PipelineEnvironment, positions: dict[int, int]) -> None:
    pipeline_env.wait_until(
        f"the consumer stands at {positions}",
        lambda: pipeline_env.consumed() == positions,
        within_s=NOTICED_WITHIN_S,
    )


def stopped_partitions(port: int) -> float:
    """Return the metric of stopped partitions, as a monitoring system reads it."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    (line,) = [each for each in lines if each.startswith("creditledger_usage_partitions_stopped ")]
    return float(line.partition(" ")[2])


def test_a_partition_stops_where_records_were_lost_until_someone_accepts_it(
    pipeline_env: PipelineEnvironment, publisher: Publisher
) -> None:
    port = pick_free_port()
    consumer = pipeline_env.worker("consumer", "consume", METRICS_PORT=str(port))
    consumer.start()
    send(publisher, [*messages(pipeline_env, 0, range(10)), *messages(pipeline_env, 1, range(10))])
    wait_for_positions(pipeline_env, {0: 10, 1: 10})
    assert consumer.stop(within_s=10) == 0, consumer.log

    send(publisher, [*messages(pipeline_env, 0, range(10, 20)), *messages(pipeline_env, 1, range(10, 20))])
    with KafkaAdminClient(bootstrap_servers=pipeline_env.bootstrap_servers) as admin:
        admin.delete_records({TopicPartition(pipeline_env.topic, 0): 15})
    consumer.start()
    wait_for_positions(pipeline_env, {0: 10, 1: 20})
    pipeline_env.wait_until(
        "the alarm is raised",
        lambda: consumer.has_logged("partition 0 stopped: offsets 10 to 14 were deleted"),
        within_s=NOTICED_WITHIN_S,
    )
    assert stopped_partitions(port) == 1

    # It does not continue by itself: neither after some time, nor with new records, nor after a restart.
    send(publisher, [*messages(pipeline_env, 0, range(20, 25)), *messages(pipeline_env, 1, range(20, 25))])
    wait_for_positions(pipeline_env, {0: 10, 1: 25})
    assert consumer.stop(within_s=10) == 0, consumer.log
    consumer.start()
    send(publisher, messages(pipeline_env, 1, range(25, 30)))
    wait_for_positions(pipeline_env, {0: 10, 1: 30})
    time.sleep(6)  # longer than the five seconds between two checks
    assert pipeline_env.consumed() == {0: 10, 1: 30}

    run_command("positions accept-loss --partition 0", pipeline_env.environment)
    wait_for_positions(pipeline_env, {0: 25, 1: 30})
    pipeline_env.wait_until(
        "the alarm is over", lambda: stopped_partitions(port) == 0, within_s=NOTICED_WITHIN_S
    )
    assert charged(pipeline_env, 0) == [*range(10), *range(15, 25)]
    assert charged(pipeline_env, 1) == list(range(30))


@pytest.mark.parametrize("running", [False, True], ids=["while stopped", "while running"])
def test_a_recreated_topic_is_read_from_its_beginning_and_charges_nothing_twice(
    pipeline_env: PipelineEnvironment, publisher: Publisher, running: bool
) -> None:
    consumer = pipeline_env.worker("consumer", "consume")
    consumer.start()
    send(publisher, [*messages(pipeline_env, 0, range(20)), *messages(pipeline_env, 1, range(20))])
    wait_for_positions(pipeline_env, {0: 20, 1: 20})
    if not running:
        assert consumer.stop(within_s=10) == 0, consumer.log

    recreate_topic(pipeline_env)
    # The producer still has a sequence number that the new topic does not know: a new producer is needed.
    second = Publisher(pipeline_env.bootstrap_servers, pipeline_env.topic)
    try:
        # Partition 0 ends before the old position, and partition 1 after it.
        send(second, [*messages(pipeline_env, 0, range(10, 25)), *messages(pipeline_env, 1, range(30))])
    finally:
        second.close()
    consumer.start()
    wait_for_positions(pipeline_env, {0: 15, 1: 30})
    assert charged(pipeline_env, 0) == list(range(25))
    assert charged(pipeline_env, 1) == list(range(30))


def recreate_topic(pipeline_env: PipelineEnvironment) -> None:
    """Delete the topic and create it again with the same name. The broker needs some time to delete it."""
    with KafkaAdminClient(bootstrap_servers=pipeline_env.bootstrap_servers) as admin:
        admin.delete_topics([pipeline_env.topic])
        deadline = time.monotonic() + NOTICED_WITHIN_S
        while True:
            try:
                admin.create_topics([NewTopic(pipeline_env.topic, pipeline_env.partitions, -1)])
            except KafkaError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return
