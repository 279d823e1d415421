"""Runs generated traffic through ingest and projections in this process, without a broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from consumers.usage.dead_letters import KafkaDeadLetters
from consumers.usage.ingest import UsageIngest
from consumers.usage.ports import PositionMove
from consumers.usage.positions import record_digest
from infra.clock import utc_now
from infra.event_store.datastore import LedgerDatastore
from infra.event_store.kafka_positions import PostgresKafkaPositions
from infra.event_store.usage_store import PostgresUsageStore
from infra.migrations.migrate import migrate
from infra.settings import load_rate_card
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.auditor.accounts import Account
from tests.auditor.wire import Record
from tests.e2e.ledger_writer import LedgerWriter
from tests.e2e.traffic import Outgoing, Traffic, rate_card_json

TOPIC = "photo-processing.usage.v1"
TOPIC_ID = "in-process"
BATCH = 100


class KafkaRecord(NamedTuple):
    """A record as a Kafka client returns it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass
class Ingested:
    """The ingested records, and the resulting dead letters."""

    records: list[Record]
    letters: list[Record]
    accounts: list[Account]


class _Acknowledged:
    def get(self, timeout: float) -> None:
        pass


class _InMemoryDeadLetters:
    """A fake producer that keeps what it is given."""

    def __init__(self) -> None:
        self.letters: list[Record] = []

    def send(
        self,
        topic: str,
        *,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        key: bytes | None = None,
    ) -> _Acknowledged:
        self.letters.append(Record(0, len(self.letters), key, value, tuple(headers)))
        return _Acknowledged()

    def close(self, timeout: float) -> None:
        pass


def ingest(database: str, traffic: Traffic) -> Ingested:
    """Charge and project traffic in a new, empty database."""
    migrate(database)
    records = _as_kept(traffic.records)
    half = len(records) // 2
    ledger_writer, box = LedgerWriter(database, seed=1), _InMemoryDeadLetters()
    datastore, store = LedgerDatastore(database, pool_size=2), PostgresUsageStore(database)
    consumer = UsageIngest(store, _rate_card(), KafkaDeadLetters(lambda: box, f"{TOPIC}.dlq"), utc_now)
    try:
        positions = PostgresKafkaPositions(datastore)
        for partition in sorted({record.partition for record in records}):
            positions.start_log(TOPIC, partition, TOPIC_ID, 0, None)
        next_offsets: Counter[int] = Counter()
        for when, part in (("at the start", records[:half]), ("in the middle", records[half:])):
            ledger_writer.open([each for each in traffic.organisations if each.opens == when])
            ledger_writer.add(40)
            _charge(consumer, part, next_offsets)
            consumer.charge_parked(10_000)
        consumer.flush()
        accounts = ledger_writer.accounts
    finally:
        consumer.close()
        store.close()
        datastore.close()
        ledger_writer.close()
    ProjectionRunner(database, ALL_PROJECTIONS).catch_up()
    return Ingested([Record(*each[1:5], tuple(each.headers)) for each in records], box.letters, accounts)


def _as_kept(outgoing: Sequence[Outgoing]) -> list[KafkaRecord]:
    offsets: Counter[int] = Counter()
    kept = []
    for partition, key, value, headers in outgoing:
        kept.append(KafkaRecord(TOPIC, partition, offsets[partition], key, value, headers))
        offsets[partition] += 1
    return kept


def _charge(consumer: UsageIngest, records: Sequence[KafkaRecord], next_offsets: Counter[int]) -> None:
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        last: dict[int, KafkaRecord] = {record.partition: record for record in batch}
        moves = []
        for partition, record in sorted(last.items()):
            following = record.offset + 1
            moves.append(
                PositionMove(
                    TOPIC, partition, TOPIC_ID, next_offsets[partition], following, record_digest(record)
                )
            )
            next_offsets[partition] = following
        consumer.submit(moves, sorted(batch, key=lambda record: record.partition))


def _rate_card() -> Any:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rates.json"
        path.write_text(rate_card_json(), encoding="utf-8")
        return load_rate_card(path)
