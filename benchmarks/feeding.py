"""Feeds records to the product's ingest like its consumer loop, without a broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from benchmarks.traffic import TOPIC, UsageRecord
from consumers.usage.batch import Counts
from consumers.usage.ingest import UsageIngest
from consumers.usage.ports import PositionMove
from consumers.usage.positions import record_digest
from domain.pricing.rate_card import RateCard
from infra.event_store.usage_store import PostgresUsageStore

TOPIC_ID: Final = "benchmark"


class NoDeadLetters:
    """A dead-letter port that is never used: all messages here are valid."""

    def send(self, letters: Sequence[Any]) -> Any:
        raise AssertionError(f"refused: {letters[0].reason}")


@contextmanager
def open_ingest(store: PostgresUsageStore) -> Iterator[UsageIngest]:
    """Yield an ingest, wired as in production but without a broker."""
    with closing(UsageIngest(store, RateCard(), NoDeadLetters(), lambda: datetime.now(UTC))) as ingest:
        yield ingest


def start_position(conninfo: str) -> None:
    """Store the start position of the single partition that cases without a broker read."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.consumer_positions (topic, partition, topic_id, next_offset)"
            " VALUES (%s, 0, %s, 0)",
            (TOPIC, TOPIC_ID),
        )


def feed(ingest: UsageIngest, records: Sequence[UsageRecord], batch_size: int) -> None:
    """Feed records to the ingest like the consumer loop, and wait until all are committed."""
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        first, last = batch[0], batch[-1]
        move = PositionMove(TOPIC, 0, TOPIC_ID, first.offset, last.offset + 1, record_digest(last))
        ingest.submit([move], batch)
    ingest.flush()


def feed_all(conninfo: str, records: Sequence[UsageRecord], batch_size: int) -> Counts:
    """Feed records to a new ingest and return the outcome counts."""
    with closing(PostgresUsageStore(conninfo)) as store, open_ingest(store) as ingest:
        feed(ingest, records, batch_size)
        return ingest.counts
