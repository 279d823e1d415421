"""Checks that the ledger equals what was published: compares the change of its totals with the sender's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import psycopg
from kafka import KafkaConsumer, TopicPartition

from consumers.usage.broker_offsets import known_offsets
from consumers.usage.dead_letters import HEADER_PREFIX
from infra.kafka.connections import connection_options
from infra.settings import Settings
from projections.connection import Connection

_POLL_S: Final = 0.1

_BALANCES: Final = "SELECT organisation_id, balance, charged FROM projections.balances"
_RUNS: Final = """
    SELECT b.organisation_id, sum(m.runs)::bigint
    FROM projections.usage_months m JOIN projections.balances b USING (stream) GROUP BY 1
"""
_CHARGES: Final = """
    SELECT count(*) FROM ledger.events
    WHERE notification_id > %s AND topic = 'usage_charged.v1'
        AND position('"/credit-ledger/holds"'::bytea IN state) = 0  -- a hold's settlement is not a message
"""
_LOG_END: Final = "SELECT coalesce(max(notification_id), 0) FROM ledger.events"
_PROJECTED: Final = "SELECT coalesce(min(position), 0) FROM projections.positions"
_PUBLISHED: Final = """
    SELECT coalesce(min(published."position"), 0)
    FROM unnest(%s::text[]) AS asked (topic) LEFT JOIN ledger.publisher_positions AS published USING (topic)
    HAVING count(*) = count(published."position")
"""
_POSITIONS: Final = "SELECT partition, next_offset FROM ledger.consumer_positions WHERE topic = %s ORDER BY 1"


class OrganisationTotals(msgspec.Struct, frozen=True):
    """Usage of one organisation: credits charged, distinct runs, photos charged."""

    credits: int = 0
    runs: int = 0
    photos: int = 0

    def __sub__(self, earlier: OrganisationTotals) -> OrganisationTotals:
        return OrganisationTotals(
            self.credits - earlier.credits, self.runs - earlier.runs, self.photos - earlier.photos
        )


class LedgerTotals(msgspec.Struct, frozen=True):
    """Totals of the ledger and the dead-letter topic at one moment."""

    log_end: int
    projected: int
    published: int
    balances: dict[str, int]
    accounts: dict[str, OrganisationTotals]
    dead_letters: int
    offsets: dict[int, int]


class PublishedTotals(msgspec.Struct, frozen=True):
    """Totals of the simulated pipeline: acknowledged records and the expected charges."""

    records: int
    refused: int
    accounts: dict[str, OrganisationTotals]
    next_offsets: dict[int, int]
    unconfirmed: int = 0
    account_lost: bool = False
    """The pipeline exited before it wrote its totals, so they are unknown."""


class LoadVerifier:
    """Reads the totals of one service."""

    def __init__(self, settings: Settings, database_url: str, bootstrap_servers: str) -> None:
        self._settings = settings
        self._database_url = database_url
        self._bootstrap_servers = bootstrap_servers

    def read(self) -> LedgerTotals:
        """Return the current totals."""
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            balances = connection.execute(_BALANCES).fetchall()
            runs: dict[str, int] = dict(connection.execute(_RUNS).fetchall())
            return LedgerTotals(
                _number(connection, _LOG_END),
                _number(connection, _PROJECTED),
                self._published(connection),
                {name: balance for name, balance, _ in balances},
                {name: OrganisationTotals(charged, runs.get(name, 0)) for name, _, charged in balances},
                self._count_dead_letters(),
                self._offsets(connection),
            )

    def wait_until_drained(self, next_offsets: Mapping[int, int], timeout_s: float) -> bool:
        """Wait until every published record is charged and projected.

        Return False after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with psycopg.connect(self._database_url, autocommit=True) as connection:
                offsets = self._offsets(connection)
                charged = all(offsets.get(p, 0) >= offset for p, offset in next_offsets.items())
                if charged and _number(connection, _PROJECTED) >= _number(connection, _LOG_END):
                    return True
            time.sleep(_POLL_S)
        return False

    def wait_until_published(self, timeout_s: float) -> None:
        """Wait until the whole log is published, at most `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            while self._published(connection) < _number(connection, _LOG_END):
                if time.monotonic() > deadline:
                    return
                time.sleep(_POLL_S)

    def read_end_offsets(self) -> dict[int, int]:
        """Return the end offset of each partition of the usage topic."""
        with self._consumer() as consumer:
            topic = self._settings.usage_topic
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
            end_offsets = known_offsets(consumer.end_offsets, partitions)
            return {tp.partition: end for tp, end in end_offsets.items()}

    def report(self, before: LedgerTotals, after: LedgerTotals, published: PublishedTotals) -> dict[str, Any]:
        """Return the final report. Its field `equal` is true if the ledger equals what was published."""
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            charges = _number(connection, _CHARGES, (before.log_end,))
        dead_letters = after.dead_letters - before.dead_letters
        differences = list(_differences(before, after, published, dead_letters))
        return {
            "messages_published": published.records,
            "charges_recorded": charges,
            "repeats_dropped": published.records - charges - dead_letters,
            "dead_letters": dead_letters,
            "balances": after.balances,
            "positions": {
                "usage": after.offsets,
                "log_end": after.log_end,
                "projections": after.projected,
                "published": after.published,
            },
            "equal": not differences,
            "differences": differences,
        }

    def _offsets(self, connection: Connection) -> dict[int, int]:
        return dict(connection.execute(_POSITIONS, (self._settings.usage_topic,)).fetchall())

    def _published(self, connection: Connection) -> int:
        """Return the position up to which both topics have the log; 0 if a topic has no record yet."""
        topics = [self._settings.events_topic, self._settings.balances_topic]
        row = connection.execute(_PUBLISHED, (topics,)).fetchone()
        return 0 if row is None else int(row[0])

    def _count_dead_letters(self) -> int:
        """Count the dead letters by their origin, because the topic may contain a record twice."""
        topic = self._settings.dead_letter_topic
        origins = set()
        with self._consumer(consumer_timeout_ms=1_000) as consumer:
            consumer.assign([TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()])
            for record in consumer:
                headers = dict(record.headers)
                origins.add(
                    tuple(headers.get(HEADER_PREFIX + name) for name in ("topic", "partition", "offset"))
                )
        return len(origins)

    def _consumer(self, **options: Any) -> Any:
        return KafkaConsumer(
            **connection_options(self._settings, self._bootstrap_servers),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **options,
        )


def _differences(
    before: LedgerTotals, after: LedgerTotals, published: PublishedTotals, dead_letters: int
) -> Any:
    if published.account_lost:
        yield {"publisher": "exited before it wrote its totals"}
    for name, expected in published.accounts.items():
        recorded = after.accounts.get(name, OrganisationTotals()) - before.accounts.get(
            name, OrganisationTotals()
        )
        if recorded != expected:
            yield {"organisation": name, "published": expected, "recorded": recorded}
    if dead_letters != published.refused:
        yield {"dead_letters": dead_letters, "published": published.refused}
    if published.unconfirmed:
        yield {"unconfirmed": published.unconfirmed}
    if after.projected != after.log_end:
        yield {"projected": after.projected, "log_end": after.log_end}
    if after.published != after.log_end:
        yield {"published": after.published, "log_end": after.log_end}


def _number(connection: Connection, query: str, values: tuple[Any, ...] = ()) -> int:
    row = connection.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])
