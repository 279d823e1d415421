"""A lab per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.consumers.lab import Lab


@pytest.fixture
def lab(migrated_database: str, service_database: str) -> Iterator[Lab]:
    lab = Lab(migrated_database, service_database)
    yield lab
    lab.close()
