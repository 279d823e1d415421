"""Batches are applied exactly once, with interruptions and with concurrent projectors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from domain.shared.errors import InvariantViolation, UnknownEventType
from projections.credits import queries as credit_queries
from projections.credits.balance import BalanceProjection
from projections.credits.statement import StatementProjection
from projections.engine.errors import ProjectionCheckpointConflict
from projections.engine.projector import Projector
from projections.registry import ALL_PROJECTIONS
from tests.histories import START, Account
from tests.integration.projections.conftest import Ledger


class Lost(Exception):
    """The connection was lost, on purpose."""


class CrashingConnection:
    """Forwards statements to a connection, and loses it before or after one of them."""

    def __init__(self, connection: psycopg.Connection[Any], statements: int) -> None:
        self._connection = connection
        self._left = statements

    def __getattr__(self, name: str) -> Any:
        if name in {"execute", "cursor"}:
            if self._left == 0:
                self._connection.close()
                raise Lost
            self._left -= 1
        return getattr(self._connection, name)


def grown(accounts: list[Account]) -> list[Account]:
    """Add events of many kinds to accounts, and continue their runs."""
    for number, account in enumerate(accounts):
        charge = account.charge(10 + number, at=START + timedelta(days=20 * number))
        account.charge(5, "run-89", event_id=7, at=START + timedelta(days=20))
        account.grant(100)
        account.refund(charge, 2)
    return accounts


@pytest.fixture
def accounts(ledger: Ledger) -> list[Account]:
    accounts = grown([Account(f"org-{number}", time_zone="Asia/Kolkata") for number in range(3)])
    ledger.append(*accounts)
    return accounts


def position_of(ledger: Ledger) -> int:
    return credit_queries.positions(ledger.connection).position


def test_an_applied_batch_is_not_applied_again(ledger: Ledger, accounts: list[Account]) -> None:
    read = ledger.project()

    assert read == len(ledger.log)
    assert ledger.project() == 0
    ledger.assert_projected()


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1_000])
def test_batches_of_any_size_give_the_same_rows(
    ledger: Ledger, accounts: list[Account], batch_size: int
) -> None:
    ledger.project(batch_size)
    grown(accounts)
    ledger.append(*accounts)
    ledger.project(batch_size)

    ledger.assert_projected()


def test_a_crash_between_any_two_statements_loses_and_repeats_nothing(
    ledger: Ledger, accounts: list[Account]
) -> None:
    statements = 0
    crashes = 0
    while position_of(ledger) < len(ledger.log):
        with Projector(ledger.service, ALL_PROJECTIONS, batch_size=10) as projector:
            projector._writer = CrashingConnection(projector._writer, statements)  # type: ignore[assignment]
            try:
                projector.catch_up()
            except (Lost, psycopg.OperationalError):
                crashes += 1
        ledger.assert_projected(ledger.log[: position_of(ledger)])
        statements += 1

    assert crashes > 10


def test_a_projector_of_an_older_position_writes_nothing(ledger: Ledger, accounts: list[Account]) -> None:
    with Projector(ledger.service, ALL_PROJECTIONS) as slow:
        ledger.project()
        with pytest.raises(ProjectionCheckpointConflict):
            slow.catch_up()
        slow.load_positions()
        assert slow.catch_up() == 0

    ledger.assert_projected()


def test_a_projector_of_an_older_generation_writes_nothing(ledger: Ledger, accounts: list[Account]) -> None:
    with Projector(ledger.service, ALL_PROJECTIONS) as old:
        ledger.connection.execute("UPDATE projections.positions SET generation = generation + 1")
        with pytest.raises(ProjectionCheckpointConflict):
            old.catch_up()

    assert position_of(ledger) == 0


def test_concurrent_projectors_apply_each_batch_once(ledger: Ledger, accounts: list[Account]) -> None:
    for _ in range(15):
        grown(accounts)
    end = ledger.append(*accounts)

    def project() -> int:
        lost_races = 0
        with Projector(ledger.service, ALL_PROJECTIONS, batch_size=3) as projector:
            while True:
                try:
                    projector.catch_up(end)
                except ProjectionCheckpointConflict:
                    lost_races += 1
                    projector.load_positions()
                else:
                    return lost_races

    with ThreadPoolExecutor(3) as pool:
        races = [pool.submit(project) for _ in range(3)]
        lost_races = sum(race.result() for race in races)

    assert lost_races > 0
    ledger.assert_projected()


def test_a_projection_that_is_behind_catches_up_first(ledger: Ledger, accounts: list[Account]) -> None:
    with Projector(ledger.service, [BalanceProjection()]) as ahead:
        ahead.catch_up(up_to=5)

    with Projector(ledger.service, [BalanceProjection(), StatementProjection()], batch_size=2) as both:
        first = both._next_group(100)
        assert first is not None
        assert [checkpoint.projection for checkpoint in first.checkpoints] == ["statement"]
        assert (first.position, first.up_to) == (0, 5)
        # Five events for the projection that is behind, then all others for both.
        assert both.catch_up() == len(ledger.log)

    ledger.assert_projected()


def test_gaps_in_the_ids_are_skipped(ledger: Ledger, accounts: list[Account]) -> None:
    ledger.connection.execute(
        "SELECT nextval('ledger.events_notification_id_seq') FROM generate_series(1, 50)"
    )
    grown(accounts)
    end = ledger.append(*accounts)
    ledger.project(batch_size=4)

    assert position_of(ledger) == end == len(ledger.log) + 50
    ledger.assert_projected()


def test_an_event_of_a_newer_version_stops_the_projection_before_it(
    ledger: Ledger, accounts: list[Account]
) -> None:
    ledger.project()
    ledger.connection.execute(
        "INSERT INTO ledger.events (originator_id, originator_version, topic, state)"
        " VALUES (gen_random_uuid(), 1, 'from_the_future.v1', '[]')"
    )

    with pytest.raises(UnknownEventType, match=r"from_the_future\.v1"):
        ledger.project()
    assert position_of(ledger) == len(ledger.log)


def test_events_of_an_organisation_that_never_opened_are_refused(ledger: Ledger) -> None:
    account = Account()
    account.grant(5)
    ledger.append_events(account.collect()[1:])

    with pytest.raises(InvariantViolation):
        ledger.project()
    assert position_of(ledger) == 0
