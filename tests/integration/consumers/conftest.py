"""One ingest environment per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.consumers.ingest_environment import IngestEnvironment


@pytest.fixture
def ingest_env(migrated_database: str, service_database: str) -> Iterator[IngestEnvironment]:
    ingest_env = IngestEnvironment(migrated_database, service_database)
    yield ingest_env
    ingest_env.close()
