"""A ledger on a real database, a topic in memory, and ingests that read from it: everything but Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from consumers.usage.ingest import UsageIngest
from consumers.usage.ports import DeadLetterRecord, PositionMove
from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger
from domain.pricing.rate_card import RateCard
from domain.shared.command_context import CommandContext
from domain.shared.errors import DeadLettersUnavailable
from infra.event_store.datastore import LedgerDatastore
from infra.event_store.kafka_positions import PostgresKafkaPositions
from infra.event_store.usage_store import PostgresUsageStore
from infra.service.composition import credits_of, open_ledger
from tests.integration.consumers.call_interceptor import CallInterceptor, Hook
from tests.integration.consumers.recount import RecountedLedger, recount_ledger
from tests.unit.usage.records import TOPIC, KafkaRecord

START = datetime(2026, 11, 1, 9, tzinfo=UTC)
TOPIC_ID = "first-log"
TERMINATED_WITHIN_S = 20.0


class InMemoryDeadLetters:
    """Dead letters in memory: stored when `wait` returns."""

    def __init__(self) -> None:
        self.safe: list[DeadLetterRecord] = []
        self.available = True

    def send(self, letters: Sequence[DeadLetterRecord]) -> Callable[[], None]:
        waiting = list(letters)

        def wait() -> None:
            if not self.available:
                raise DeadLettersUnavailable
            self.safe.extend(waiting)
            waiting.clear()

        return wait

    def offsets(self) -> list[tuple[int, int]]:
        return sorted((letter.partition, letter.record_offset) for letter in self.safe)

    def reasons(self) -> dict[tuple[int, int], str]:
        return {(letter.partition, letter.record_offset): letter.reason for letter in self.safe}


class Partition:
    """A partition's log, and the offset of the next record."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self.log: list[KafkaRecord] = []
        self.read_to = 0

    def add(self, *records: KafkaRecord) -> None:
        for record in records:
            place = {"topic": self.topic, "partition": self.number, "offset": len(self.log)}
            self.log.append(record._replace(**place))

    def next(self, count: int | None = None) -> tuple[list[PositionMove], list[KafkaRecord]]:
        """Return the next records (all without a count), and the position move past them."""
        start = self.read_to
        records = self.log[start:] if count is None else self.log[start : start + count]
        self.read_to = start + len(records)
        return [PositionMove(self.topic, self.number, TOPIC_ID, start, self.read_to, b"digest")], records


class IngestEnvironment:
    """A database with the ledger's schema, and all resources opened on it. `close` closes all of them."""

    def __init__(self, owner: str, service: str) -> None:
        self.service = service
        self.letters = InMemoryDeadLetters()
        self.now = START
        self._closing = ExitStack()
        self.connection: psycopg.Connection[Any] = psycopg.connect(owner, autocommit=True)
        self._closing.enter_context(self.connection)
        self.ledger = self.open_ledger()
        self.datastore = LedgerDatastore(service, pool_size=2)
        self._closing.callback(self.datastore.close)
        self.positions = PostgresKafkaPositions(self.datastore)

    def close(self) -> None:
        self._closing.close()

    def open_ledger(self) -> Ledger:
        ledger = open_ledger(self.service, pool_size=2)
        self._closing.callback(ledger.close)
        return ledger

    def partition(self, number: int = 0, topic: str = TOPIC) -> Partition:
        """Start the log of a partition."""
        self.positions.start_log(topic, number, TOPIC_ID, 0, None)
        return Partition(topic, number)

    def store(self, name: str = "ingest") -> PostgresUsageStore:
        store = PostgresUsageStore(make_conninfo(self.service, application_name=name))
        self._closing.callback(store.close)
        return store

    def ingest(self, *, hook: Hook | None = None, name: str = "ingest", **options: Any) -> UsageIngest:
        """Return a new ingest. As after a restart, its only state is the database."""
        store: Any = self.store(name)
        if hook is not None:
            store = CallInterceptor(store, hook)
        ingest = UsageIngest(store, RateCard(), self.letters, lambda: self.now, **options)
        self._closing.callback(ingest.close)
        return ingest

    def open(self, *organisation_ids: str, trial_credits: int = 100, ledger: Ledger | None = None) -> None:
        for organisation_id in organisation_ids:
            credits_of(ledger or self.ledger).commands.open_organisation(
                organisation_id, context=self.request(), trial_credits=trial_credits
            )

    def grant(self, organisation_id: str, credits_count: int = 5, ledger: Ledger | None = None) -> None:
        credits_of(ledger or self.ledger).commands.grant(
            organisation_id,
            credits_count,
            kind=GrantKind.ADMIN,
            reason="goodwill",
            context=self.request(),
        )

    def request(self) -> CommandContext:
        return CommandContext(self.now, "u-1", "request-1")

    def wait_days(self, days: float) -> None:
        self.now += timedelta(days=days)

    # ------------------------------------------------------------------------------ stored state

    def recounted(self) -> RecountedLedger:
        """Recount the log, and check that every way to load an organisation gives the same state."""
        recounted = recount_ledger(self.connection)
        loaded = {name: self.ledger.organisation(name) for name in recounted.versions}
        assert {name: found.version for name, found in loaded.items()} == recounted.versions
        assert {name: found.balance for name, found in loaded.items()} == {
            name: recounted.balances.get(name, 0) for name in recounted.versions
        }
        for found in loaded.values():
            found.check_invariants()
        return recounted

    def charged_ids(self) -> list[str]:
        """Return the ids of charged messages, in the order of the log."""
        return [charge.identity[1] for charge in self.recounted().charges]

    def position(self, partition: Partition) -> int:
        return self.positions.positions(partition.topic)[partition.number].next_offset

    def parked(self) -> list[tuple[int, int]]:
        return self.connection.execute(
            "SELECT partition, record_offset FROM ledger.parked_messages ORDER BY 1, 2"
        ).fetchall()

    def terminate(self, name: str = "ingest") -> int:
        """Terminate a store's database sessions, and return their number."""
        backends = [
            pid
            for (pid, _) in self.connection.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = %s",
                (name,),
            ).fetchall()
        ]
        deadline = time.monotonic() + TERMINATED_WITHIN_S
        # Wait for these sessions, not for all with this name: the store may have reconnected already.
        while self.connection.execute(
            "SELECT FROM pg_stat_activity WHERE pid = ANY(%s) LIMIT 1", (backends,)
        ).fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return len(backends)

    def sessions(self, name: str = "ingest") -> int:
        row = self.connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = %s",
            (name,),
        ).fetchone()
        assert row is not None
        return int(row[0])
