"""A log for tests to append to, and projectors with the rights of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from domain.shared.aggregate import EventEnvelope
from projections.audit import invariants
from projections.engine.projector import Projector
from projections.registry import ALL_PROJECTIONS
from tests.histories import Account, append
from tests.integration.projections.recount import projected, recount


class Ledger:
    """A migrated database, the events that tests appended, and their projections."""

    def __init__(self, owner: str, service: str, connection: psycopg.Connection[Any]) -> None:
        self.owner = owner
        self.service = service
        self.connection = connection
        self.log: list[EventEnvelope] = []

    def append(self, *accounts: Account) -> int:
        """Append the new events of accounts, and return the end of the log."""
        events = [envelope for account in accounts for envelope in account.collect()]
        self.log += events
        return append(self.connection, events)

    def append_events(self, events: Sequence[EventEnvelope]) -> int:
        self.log += events
        return append(self.connection, events)

    def project(self, batch_size: int = 1_000) -> int:
        with Projector(self.service, ALL_PROJECTIONS, batch_size=batch_size) as projector:
            return projector.catch_up()

    def one(self, query: str) -> Any:
        """Return the only value of a query."""
        row = self.connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def assert_projected(self, log: Sequence[EventEnvelope] | None = None) -> None:
        """Compare every table with a recount of the log, or of a part of it."""
        log = self.log if log is None else log
        streams = list({envelope.originator_id for envelope in self.log})
        assert projected(self.connection, streams) == recount(log)
        assert invariants.check(self.connection) == []


@pytest.fixture
def ledger(migrated_database: str, service_database: str) -> Iterator[Ledger]:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        yield Ledger(migrated_database, service_database, connection)


@pytest.fixture
def story(ledger: Ledger) -> Callable[[Account], None]:
    """A function that appends the new events of an account, projects them, and checks every table."""

    def run(account: Account) -> None:
        ledger.append(account)
        ledger.project()
        ledger.assert_projected()

    return run
