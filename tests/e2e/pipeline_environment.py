"""The environment of an end-to-end test: its database, broker, processes and topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from psycopg.conninfo import make_conninfo

from infra.embedded.postgres import EmbeddedPostgres
from infra.migrations.migrate import SERVICE_ROLE, migrate
from projections.registry import ALL_PROJECTIONS
from tests.e2e.processes import Worker
from tests.e2e.traffic import Outgoing, rate_card_json

POLL_S = 0.1
STUCK_S = 30.0

_CONSUMED = "SELECT partition, next_offset FROM ledger.consumer_positions WHERE topic = %s"
_PARKED_FOR = "SELECT count(*) FROM ledger.parked_messages WHERE organisation_id = ANY(%s)"
_PROJECTED = f"""
    SELECT count(*) = {len(ALL_PROJECTIONS)}
        AND min("position") = (SELECT coalesce(max(notification_id), 0) FROM ledger.events)
    FROM projections.positions
"""


@dataclass
class PipelineEnvironment:
    """One usage topic on a broker, one database on its own server, and the workers between them."""

    postgres: EmbeddedPostgres
    bootstrap_servers: str
    topic: str
    folder: Path
    partitions: int = 8
    workers: list[Worker] = field(default_factory=list)
    when_stuck: Callable[[], None] | None = None
    """Called every `STUCK_S` while a wait has no result."""

    @property
    def database_url(self) -> str:
        """URL of the database, with the rights of the service."""
        return make_conninfo(self.postgres.address, options=f"-c role={SERVICE_ROLE}")

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.topic}.dlq"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the service's processes."""
        return {
            "DATABASE_URL": self.database_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_GROUP_ID": f"group-of-{self.topic}",
            "USAGE_TOPIC": self.topic,
            "USAGE_PARTITIONS": str(self.partitions),
            "RATE_CARD": str(self.folder / "rates.json"),
        }

    def prepare(self) -> None:
        """Create schema, topics and rate card."""
        migrate(self.postgres.address)
        (self.folder / "rates.json").write_text(rate_card_json(), encoding="utf-8")
        with KafkaAdminClient(bootstrap_servers=self.bootstrap_servers.split(",")) as admin:
            admin.create_topics(
                [NewTopic(self.topic, self.partitions, -1), NewTopic(self.dead_letter_topic, 1, -1)]
            )

    def worker(self, name: str, command: str, **environment: str) -> Worker:
        """Return a worker that ends with this environment. The caller starts it."""
        worker = Worker(name, command, self.environment | environment, self.folder)
        self.workers.append(worker)
        return worker

    def end(self) -> None:
        """End every process."""
        for worker in self.workers:
            worker.end()

    # ---------------------------------------------------------------------------- observation

    def query(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.address, autocommit=True) as connection:
            return connection.execute(query, parameters).fetchall()

    def consumed(self) -> dict[int, int]:
        """Return the stored position of every partition."""
        return dict(self.query(_CONSUMED, self.topic))  # type: ignore[arg-type]

    def wait_until(self, what: str, reached: Callable[[], bool], *, within_s: float) -> None:
        """Wait until a condition is true. If the database is down, keep waiting."""
        deadline = time.monotonic() + within_s
        stuck_at = time.monotonic() + STUCK_S
        while True:
            try:
                if reached():
                    return
            except psycopg.OperationalError:
                pass
            if self.when_stuck is not None and time.monotonic() > stuck_at:
                stuck_at = time.monotonic() + STUCK_S
                self.when_stuck()
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s} s: {what}\n{self.describe()}")
            time.sleep(POLL_S)

    def wait_until_up(self, worker: Worker, *, within_s: float = 30.0) -> None:
        """Wait until a process works. Before that, a signal ends it like any Python program."""
        words = {"consume": "charging usage", "project": "projecting"}[worker.command]
        self.wait_until(f"{worker.name} is up", lambda: worker.has_logged(words), within_s=within_s)

    def wait_for_progress(self, since: Mapping[int, int], *, within_s: float) -> None:
        """Wait until the consumed positions increase."""
        self.wait_until(
            "the consumer goes on",
            lambda: sum(self.consumed().values()) > sum(since.values()),
            within_s=within_s,
        )

    def wait_until_drained(
        self, ends: Mapping[int, int], opened: Iterable[str], *, within_s: float = 120.0
    ) -> None:
        """Wait until all records are consumed, no message of an open organisation is parked, and all is
        projected.
        """
        names = list(opened)

        def drained() -> bool:
            consumed = self.consumed()
            return (
                all(consumed.get(partition, 0) >= end for partition, end in ends.items())
                and self.query(_PARKED_FOR, names) == [(0,)]
                and self.query(_PROJECTED) == [(True,)]
            )

        self.wait_until(f"all is consumed up to {dict(ends)} and projected", drained, within_s=within_s)

    def describe(self) -> str:
        """Return a description for the message of a failed test."""
        return "\n".join(f"--- {worker.name}\n{worker.log}" for worker in self.workers)


class Publisher:
    """Sends records in order within each partition, and knows the ends of the log."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.ends: dict[int, int] = {}
        self._topic = topic
        self._under_way: list[Any] = []
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap_servers.split(","),
            acks="all",
            linger_ms=5,
            delivery_timeout_ms=120_000,
        )

    def send(self, records: Sequence[Outgoing]) -> None:
        """Send records without waiting for the broker."""
        for partition, key, value, headers in records:
            self._under_way.append(
                self._producer.send(
                    self._topic, key=key, value=value, headers=list(headers), partition=partition
                )
            )

    def settle(self) -> None:
        """Wait until everything sent is acknowledged."""
        for future in self._under_way:
            sent = future.get(timeout=130)
            self.ends[sent.partition] = max(self.ends.get(sent.partition, 0), sent.offset + 1)
        self._under_way.clear()

    def close(self) -> None:
        self._producer.close(timeout=5)


@contextmanager
def running_pipeline(pipeline_env: PipelineEnvironment) -> Iterator[Publisher]:
    """Prepare an environment, yield a publisher for it, and end every process."""
    pipeline_env.prepare()
    publisher = Publisher(pipeline_env.bootstrap_servers, pipeline_env.topic)
    try:
        yield publisher
    finally:
        pipeline_env.end()
        publisher.close()
