"""The usage consumer, on a real broker and a real database, run as a process would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from psycopg.conninfo import make_conninfo

from consumers.usage.positions import StoredPosition
from infra.embedded.broker import EmbeddedBroker
from infra.embedded.postgres import EmbeddedPostgres
from infra.migrations.migrate import SERVICE_ROLE, migrate
from infra.settings import Settings
from tests.integration.consumers.ingest_environment import IngestEnvironment
from tests.integration.consumers.service import (
    Service,
    committed,
    create_topics,
    dead_letters,
    delete_topic,
    publish,
    settings_for,
    wait_until,
)
from tests.servers import FAST
from tests.unit.usage.records import KafkaRecord, binary, usage_event, usage_record

PARTITIONS = 8
ORGANISATIONS = [f"org-{number}" for number in range(24)]


@pytest.fixture
def settings(broker: str, topic_name: Callable[[str], str]) -> Settings:
    settings = settings_for(broker, topic_name("usage"), partitions=PARTITIONS)
    create_topics(settings)
    return settings


def messages(prefix: str, count: int) -> list[KafkaRecord]:
    """Return messages of all organisations, every third one in binary mode."""
    return [
        binary(usage_event({"id": f"{prefix}-{number}", "subject": name, "data.photos": 1}))
        if number % 3 == 0
        else usage_record(f"{prefix}-{number}", name)
        for number in range(count)
        for name in [ORGANISATIONS[number % len(ORGANISATIONS)]]
    ]


def ids(prefix: str, count: int) -> list[str]:
    return sorted(f"{prefix}-{number}" for number in range(count))


def charges(ingest_env: IngestEnvironment) -> int:
    row = ingest_env.connection.execute(
        "SELECT count(*) FROM ledger.events WHERE topic = 'usage_charged.v1'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_from_the_topic_into_the_ledger(
    ingest_env: IngestEnvironment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.usage.consumer.BATCH_RECORDS", 300)
    ingest_env.open(*ORGANISATIONS)
    bad = KafkaRecord(b"org-1", b"not JSON", [("trace", b"\xff")])
    repeated = usage_record("a-1", ORGANISATIONS[1])
    publish(settings, [*messages("a", 2_000), repeated, bad, usage_record("parked", "new")])
    with Service(settings, ingest_env.service) as service:
        wait_until(lambda: charges(ingest_env) == 2_000)
        (letter,) = dead_letters(settings, 1)
        assert (letter.key, letter.value, letter.headers[0]) == (b"org-1", b"not JSON", ("trace", b"\xff"))
        assert {"dlq-reason", "dlq-topic", "dlq-offset"} <= {name for name, _ in letter.headers}

        wait_until(ingest_env.parked)
        ingest_env.open("new")
        wait_until(lambda: not ingest_env.parked())
        wait_until(
            lambda: set(service.consumer.lag.values()) == {0} and len(service.consumer.lag) == PARTITIONS
        )
        assert service.owned == set(range(PARTITIONS))
        assert service.consumer.ingest.counts.repeats == 1
    assert sorted(ingest_env.charged_ids()) == sorted([*ids("a", 2_000), "parked"])
    assert max(service.batches) <= 300
    assert service.consumer.failures == 0
    stored = ingest_env.positions.positions(settings.usage_topic)
    assert sum(at.next_offset for at in stored.values()) == 2_003
    assert committed(settings, PARTITIONS) == {number: at.next_offset for number, at in stored.items()}

    # Another process resumes where this one stopped.
    publish(settings, messages("b", 300))
    with Service(settings, ingest_env.service) as service:
        wait_until(lambda: charges(ingest_env) == 2_301)
    assert service.consumer.ingest.counts.records == 300


def test_consumers_share_the_partitions_as_they_come_and_go(
    ingest_env: IngestEnvironment, settings: Settings
) -> None:
    ingest_env.open(*ORGANISATIONS)
    done, published = Event(), [0]

    def go_on_publishing() -> None:
        while not done.wait(0.05):
            publish(settings, messages(f"m{published[0]}", 50))
            published[0] += 1

    pipeline = Thread(target=go_on_publishing)
    with Service(settings, ingest_env.service) as first:
        pipeline.start()
        try:
            wait_until(lambda: first.owned == set(range(PARTITIONS)))
            with Service(settings, ingest_env.service) as second:
                wait_until(lambda: second.owned and second.consumer.ingest.counts.charges)
                wait_until(lambda: not first.owned & second.owned)
                wait_until(lambda: first.owned | second.owned == set(range(PARTITIONS)))
            before = first.consumer.ingest.counts.charges
            wait_until(lambda: first.owned == set(range(PARTITIONS)))
            wait_until(lambda: first.consumer.ingest.counts.charges > before)
        finally:
            done.set()
            pipeline.join(30)
        wait_until(lambda: charges(ingest_env) == 50 * published[0])
    expected = [f"m{batch}-{number}" for batch in range(published[0]) for number in range(50)]
    assert sorted(ingest_env.charged_ids()) == sorted(expected)
    assert dead_letter_count(ingest_env, settings) == 0


def dead_letter_count(ingest_env: IngestEnvironment, settings: Settings) -> int:
    """The number of records minus charges: there are no repeats and no parked messages here."""
    stored = ingest_env.positions.positions(settings.usage_topic)
    return sum(at.next_offset for at in stored.values()) - charges(ingest_env)


# -------------------------------------------------------------------------------------- other logs


def test_other_records_at_the_same_offsets_are_read_from_the_beginning(
    ingest_env: IngestEnvironment, settings: Settings
) -> None:
    """The broker lost its disk and was filled again: the record before our position is a different one."""
    ingest_env.open("org-1")
    records = [usage_record(f"a-{number}", "org-1") for number in range(10)]
    before, ingest = ingest_env.partition(topic="the log that was lost"), ingest_env.ingest()
    before.add(*records[:5])
    ingest.submit(*before.next())
    ingest.flush()
    ingest_env.connection.execute(
        "INSERT INTO ledger.consumer_positions (topic, partition, topic_id, next_offset, last_record_digest)"
        " VALUES (%s, 0, %s, 7, 'of another record')",
        (settings.usage_topic, create_topics(settings)),
    )
    publish(settings, records, partition=0)
    with Service(settings, ingest_env.service) as service:
        wait_until(lambda: charges(ingest_env) == 10)
        wait_until(lambda: positions(ingest_env, settings)[0] == 10)
    assert service.consumer.ingest.counts.repeats == 5
    assert sorted(ingest_env.charged_ids()) == ids("a", 10)


def test_a_recreated_topic_is_read_from_its_beginning(
    ingest_env: IngestEnvironment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.usage.consumer.OFFSETS_EVERY_S", 0.2)
    ingest_env.open(*ORGANISATIONS)
    publish(settings, messages("old", 60))
    with Service(settings, ingest_env.service) as service:
        wait_until(lambda: charges(ingest_env) == 60)
        first_ids = {at.topic_id for at in ingest_env.positions.positions(settings.usage_topic).values()}
        delete_topic(settings)
        topic_id = create_topics(settings)
        assert {topic_id} != first_ids
        # The pipeline sends unacknowledged messages again, and continues.
        publish(settings, [*messages("old", 20), *messages("new", 60)])
        wait_until(lambda: charges(ingest_env) == 120)
        wait_until(lambda: service.consumer.ingest.counts.repeats >= 20)
    assert sorted(ingest_env.charged_ids()) == sorted(ids("old", 60) + ids("new", 60))
    stored = ingest_env.positions.positions(settings.usage_topic)
    assert {at.topic_id for at in stored.values()} == {topic_id}
    assert sum(at.next_offset for at in stored.values()) == 80


# ------------------------------------------------------------------------------- servers that restart


@pytest.fixture
def own_broker(servers_root: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(servers_root / "broker-of-one-test") as server:
        yield server


@pytest.fixture
def own_postgres(servers_root: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(servers_root / "pg-of-one-test", settings=FAST) as server:
        yield server


def test_it_continues_with_a_broker_that_lost_its_data(
    ingest_env: IngestEnvironment,
    own_broker: EmbeddedBroker,
    topic_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.usage.consumer.OFFSETS_EVERY_S", 0.5)
    ingest_env.open(*ORGANISATIONS)
    settings = settings_for(own_broker.address, topic_name("usage"), partitions=2)
    create_topics(settings)
    publish(settings, messages("old", 60))
    with Service(settings, ingest_env.service) as service:
        wait_until(lambda: charges(ingest_env) == 60)
        own_broker.stop()
        own_broker.start()
        create_topics(settings)
        publish(settings, [*messages("old", 10), *messages("new", 60)])
        wait_until(lambda: charges(ingest_env) == 120)
        # Refused records need a producer that is connected to the new broker.
        publish(settings, [KafkaRecord(b"key", b"not JSON")])
        assert dead_letters(settings, 1)[0].value == b"not JSON"
        wait_until(lambda: sum(positions(ingest_env, settings).values()) == 71)
        assert service.consumer.ingest.counts.repeats >= 10
    assert sorted(ingest_env.charged_ids()) == sorted(ids("old", 60) + ids("new", 60))


def positions(ingest_env: IngestEnvironment, settings: Settings) -> dict[int, int]:
    return {
        number: at.next_offset
        for number, at in ingest_env.positions.positions(settings.usage_topic).items()
        if isinstance(at, StoredPosition)
    }


def test_it_continues_after_a_restart_of_the_database(
    own_postgres: EmbeddedPostgres, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.usage.consumer.BACKOFF_MAX_S", 0.3)
    owner = own_postgres.address
    migrate(owner)
    database = make_conninfo(owner, options=f"-c role={SERVICE_ROLE}")
    ingest_env = IngestEnvironment(owner, database)
    ingest_env.open(*ORGANISATIONS)
    publish(settings, messages("a", 500))
    with Service(settings, database) as service:
        wait_until(lambda: charges(ingest_env) == 500)
        ingest_env.close()
        own_postgres.stop()
        publish(settings, messages("b", 500))
        wait_until(lambda: service.consumer.failures >= 1)
        own_postgres.start()
        ingest_env = IngestEnvironment(owner, database)
        wait_until(lambda: charges(ingest_env) == 1_000)
        assert service.owned == set(range(PARTITIONS))
    assert sorted(ingest_env.charged_ids()) == sorted(ids("a", 500) + ids("b", 500))
    ingest_env.close()


def test_it_waits_for_a_broker_and_stops_while_it_waits(
    ingest_env: IngestEnvironment,
    own_broker: EmbeddedBroker,
    topic_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.kafka.connections.BOOTSTRAP_TIMEOUT_MS", 300)
    ingest_env.open(*ORGANISATIONS)
    settings = settings_for(own_broker.address, topic_name("usage"))
    own_broker.stop()
    with Service(settings, ingest_env.service) as service:
        wait_until(lambda: service.consumer.failures >= 1)
    with Service(settings, ingest_env.service):
        own_broker.start()
        create_topics(settings)
        publish(settings, messages("a", 30))
        wait_until(lambda: charges(ingest_env) == 30)
