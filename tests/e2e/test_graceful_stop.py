"""SIGTERM during traffic: the process exits soon, and every message is charged or will be read again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from infra.embedded.postgres import EmbeddedPostgres
from tests.e2e.auditing import audit
from tests.e2e.ledger_writer import LedgerWriter
from tests.e2e.pipeline_environment import PipelineEnvironment, Publisher, running_pipeline
from tests.e2e.traffic import Outgoing, Traffic
from tests.servers import FAST

LEAVES_WITHIN_S = 10.0
PIECE = 100


@pytest.fixture
def pipeline_env(
    servers_root: Path, tmp_path: Path, broker: str, topic_name: Callable[[str], str]
) -> Iterator[PipelineEnvironment]:
    with EmbeddedPostgres(servers_root / "stop-postgres", settings=FAST) as postgres:
        yield PipelineEnvironment(postgres, broker, topic_name("usage"), tmp_path)


@contextmanager
def flowing(publisher: Publisher, records: list[Outgoing]) -> Iterator[Event]:
    """Publish in small parts in a separate thread, until the event is set or no record is left."""
    enough = Event()

    def publish() -> None:
        while records and not enough.wait(0.02):
            publisher.send(records[:PIECE])
            del records[:PIECE]
        publisher.settle()

    thread = Thread(target=publish, name="publisher")
    thread.start()
    try:
        yield enough
    finally:
        enough.set()
        thread.join(timeout=60)
    assert not thread.is_alive(), "the broker did not accept the records"


@pytest.mark.slow
def test_messages_of_a_stopped_consumer_are_charged_or_read_again(pipeline_env: PipelineEnvironment) -> None:
    traffic = Traffic(17, messages=20_000, organisations=100, in_the_middle=0)
    records = list(traffic.records)
    with running_pipeline(pipeline_env) as publisher:
        ledger_writer = LedgerWriter(pipeline_env.database_url, seed=17)
        try:
            ledger_writer.open([each for each in traffic.organisations if each.opens == "at the start"])
        finally:
            ledger_writer.close()
        consumer, projector = (
            pipeline_env.worker("consumer", "consume"),
            pipeline_env.worker("projector", "project"),
        )
        consumer.start()
        projector.start()
        publisher.send(records[:PIECE])
        del records[:PIECE]
        publisher.settle()
        pipeline_env.wait_for_progress({}, within_s=60)  # it has joined its group
        with flowing(publisher, records):
            pipeline_env.wait_for_progress(publisher.ends, within_s=30)
            started_at = time.monotonic()
            assert consumer.stop(within_s=LEAVES_WITHIN_S) == 0, consumer.log
            assert time.monotonic() - started_at < LEAVES_WITHIN_S
            assert records, "everything was published before the stop: there was no traffic"
            time.sleep(0.2)  # so that the topic has records for the next consumer
        taken = pipeline_env.consumed()
        assert 0 < sum(taken.values()) < sum(publisher.ends.values())

        # All records before its positions are charged, and no others.
        pipeline_env.wait_until_drained(taken, ledger_writer.names)
        assert audit(pipeline_env, ledger_writer.accounts, publisher.ends, up_to=taken).differences == []

        # The next consumer resumes there.
        publisher.send(records)
        publisher.settle()
        consumer.start()
        pipeline_env.wait_until_drained(publisher.ends, ledger_writer.names)
        assert projector.stop(within_s=LEAVES_WITHIN_S) == 0, projector.log
        assert audit(pipeline_env, ledger_writer.accounts, publisher.ends).differences == []
