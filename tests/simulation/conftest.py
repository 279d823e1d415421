"""A ledger for the processes that die in these tests: each opens organisations of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from domain.credits.ledger import Ledger


@pytest.fixture(scope="module")
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """A ledger on a database of the module's own."""
    from infra.migrations.migrate import migrate
    from infra.service.composition import open_ledger
    from tests.servers import new_database

    with new_database(request.getfixturevalue("postgres_server")) as url:
        migrate(url)
        with closing(open_ledger(url)) as opened:
            yield opened
