"""The ledger's stores on one database per test, with the rights of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from domain.credits.ledger import Ledger
from infra.event_store.datastore import LedgerDatastore
from infra.event_store.recorder import LedgerRecorder
from infra.event_store.usage_store import PostgresUsageStore
from infra.service.composition import open_ledger


@pytest.fixture
def connection(migrated_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def datastore(service_database: str) -> Iterator[LedgerDatastore]:
    datastore = LedgerDatastore(service_database)
    yield datastore
    datastore.close()


@pytest.fixture
def recorder(datastore: LedgerDatastore) -> LedgerRecorder:
    return LedgerRecorder(datastore, events_table_name="events")


@pytest.fixture
def store(service_database: str) -> Iterator[PostgresUsageStore]:
    store = PostgresUsageStore(service_database)
    yield store
    store.close()


@pytest.fixture
def ledger(service_database: str) -> Iterator[Ledger]:
    ledger = open_ledger(service_database)
    yield ledger
    ledger.close()
