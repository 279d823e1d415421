"""A ledger for the crash tests. Each test opens its own organisations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from domain.credits.ledger import Ledger


@pytest.fixture(scope="module")
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """A ledger on one database per module."""
    from infra.migrations.migrate import migrate
    from infra.service.composition import open_ledger
    from tests.servers import new_database

    with new_database(request.getfixturevalue("postgres_server")) as url:
        migrate(url)
        with closing(open_ledger(url)) as opened:
            yield opened
