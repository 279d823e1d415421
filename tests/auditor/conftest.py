"""A consistent ledger for the auditor's own tests, which damage it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from infra.embedded.postgres import EmbeddedPostgres
from tests.auditor.accounts import Rates
from tests.auditor.audit import Auditor
from tests.e2e.in_process import TOPIC, Ingested, ingest
from tests.e2e.traffic import RATE_CHANGES, Traffic
from tests.servers import new_database

Connection = psycopg.Connection[Any]


@dataclass
class Case:
    """A database with all kinds of data, and an auditor for it."""

    database: str
    ingested: Ingested
    auditor: Auditor


@pytest.fixture(scope="session")
def case(postgres_server: EmbeddedPostgres) -> Iterator[Case]:
    """2,500 messages of 20 organisations, charged and projected: the busiest one has a snapshot."""
    traffic = Traffic(4711, messages=2_500, organisations=20, partitions=2, in_the_middle=2)
    with new_database(postgres_server) as database:
        ingested = ingest(database, traffic)
        auditor = Auditor(TOPIC, ingested.records, ingested.accounts, Rates(RATE_CHANGES))
        yield Case(database, ingested, auditor)


@pytest.fixture
def connection(case: Case) -> Iterator[Connection]:
    """A connection whose changes are rolled back."""
    with psycopg.connect(case.database) as connection:
        yield connection
        connection.rollback()
