"""Which snapshots are kept. Loads and past states are the same without the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import psycopg
import pytest

from domain.credits.events import GrantKind
from domain.shared.stream_keys import stream_id
from infra.event_store import snapshot_retention
from infra.event_store.snapshot_retention import SnapshotRetentionWorker
from infra.service.composition import credits_of, open_ledger
from tests.histories import Account, append

ORG = "org-4711"


@pytest.fixture
def connection(service_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(service_database, autocommit=True) as connection:
        yield connection


def keep(connection: psycopg.Connection[Any], stream: UUID, *versions: int) -> None:
    for version in versions:
        connection.execute(
            "INSERT INTO ledger.snapshots VALUES (%s, %s, 'organisation_snapshot.v1', '')", [stream, version]
        )


def kept(connection: psycopg.Connection[Any], stream: UUID) -> list[int]:
    rows = connection.execute(
        "SELECT originator_version FROM ledger.snapshots WHERE originator_id = %s ORDER BY 1", [stream]
    ).fetchall()
    return [version for (version,) in rows]


def test_the_latest_snapshots_and_one_per_some_thousand_versions_are_kept(
    connection: psycopg.Connection[Any], service_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_retention, "_BATCH_LIMIT", 7)
    busy, quiet = stream_id("busy"), stream_id("quiet")
    keep(connection, busy, *range(500, 14_001, 500))
    keep(connection, quiet, 500, 1_000, 1_500, 2_000)

    assert SnapshotRetentionWorker(service_database).delete_old_snapshots(connection) == 21

    assert kept(connection, busy) == [500, 5_000, 10_000, 12_500, 13_000, 13_500, 14_000]
    assert kept(connection, quiet) == [500, 1_000, 1_500, 2_000]
    assert SnapshotRetentionWorker(service_database).delete_old_snapshots(connection) == 0


def test_loads_are_unchanged(
    connection: psycopg.Connection[Any], service_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.credits.organisation_state.SNAPSHOT_EVERY", 4)
    monkeypatch.setattr(snapshot_retention, "KEEP_EVERY_NTH", 16)
    append(connection, Account(ORG, trial_credits=10).collect())
    with closing(open_ledger(service_database)) as ledger:
        account = Account(ORG)
        for _ in range(60):
            credits_of(ledger).commands.grant(
                ORG, 1, kind=GrantKind.ADMIN, reason="goodwill", context=account.request()
            )
        before = [ledger.organisation(ORG, version=version) for version in range(1, 63)]
        assert SnapshotRetentionWorker(service_database).delete_old_snapshots(connection) > 0
    with closing(open_ledger(service_database)) as ledger:
        after = [ledger.organisation(ORG, version=version) for version in range(1, 63)]
    assert [(each.version, each.balance, each.lots) for each in after] == [
        (each.version, each.balance, each.lots) for each in before
    ]
