"""A rebuild makes the same rows from the log, while readers and writers continue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
import pytest

from domain.shared.errors import InvalidInput
from projections.credits import queries as credit_queries
from projections.engine import rebuild as rebuilding
from projections.engine.errors import ProjectionCheckpointConflict, RebuildConflict
from projections.engine.projector import Projector
from projections.engine.rebuild import rebuild
from projections.engine.runner import ProjectionRunner
from projections.engine.shadow_tables import SHADOW_SCHEMA, rebuild_lock
from projections.registry import ALL_PROJECTIONS, projections_named
from tests.database import catalogue
from tests.histories import START, Account
from tests.integration.projections.conftest import Ledger

ALL = ["balance", "payment_flags", "payments", "statement"]


@pytest.fixture
def account(ledger: Ledger) -> Account:
    account = Account(trial_credits=200)
    for number in range(40):
        account.charge(number, f"run-{number % 7}", event_id=number % 3)
    ledger.append(account)
    ledger.project()
    return account


@contextmanager
def repeating(action: Any) -> Iterator[None]:
    """Repeat an action in another thread, and raise its error at the end."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert errors == []


def generations(ledger: Ledger) -> list[int]:
    return [checkpoint.generation for checkpoint in credit_queries.positions(ledger.connection).projections]


def test_it_repairs_rows_and_keeps_the_tables_definition(ledger: Ledger, account: Account) -> None:
    before = catalogue(ledger.connection)
    ledger.connection.execute("UPDATE projections.balances SET balance = 0")
    ledger.connection.execute("DELETE FROM projections.transactions")

    assert rebuild(ledger.owner, projections_named(ALL)) == dict.fromkeys(ALL, len(ledger.log))

    ledger.assert_projected()
    assert catalogue(ledger.connection) == before
    assert generations(ledger) == [2] * len(ALL)
    assert ledger.one(f"SELECT count(*) FROM pg_namespace WHERE nspname = '{SHADOW_SCHEMA}'") == 0


def test_one_projection_can_be_rebuilt_alone(ledger: Ledger, account: Account) -> None:
    account.charge(3)
    end = ledger.append(account)

    assert rebuild(ledger.owner, projections_named(["statement"])) == {"statement": end}

    checkpoints = credit_queries.positions(ledger.connection).projections
    assert [(each.position, each.generation) for each in checkpoints] == [
        *[(end - 1, 1)] * (len(ALL) - 1),
        (end, 2),
    ]
    ledger.project()
    ledger.assert_projected()


def test_readers_and_writers_continue_during_a_rebuild(ledger: Ledger, account: Account) -> None:
    runner = ProjectionRunner(ledger.service, ALL_PROJECTIONS, batch_size=20)
    live = threading.Thread(target=runner.run)
    live.start()
    numbers = count()

    def write() -> None:
        number = next(numbers)
        account.charge(number % 5, f"run-{number // 20}", at=START, event_id=number % 4)
        ledger.append(account)

    def read() -> None:
        balance = credit_queries.balance(reader, "org-4711")
        assert balance.balance == 200 - balance.charged
        assert balance.version >= len(starting_log)
        page = credit_queries.transactions(reader, "org-4711", None, None, 500)
        (card,) = credit_queries.usage_summary(reader, "org-4711", 1, START).months
        assert len(page.transactions) >= 7
        assert card.credits >= 780
        assert credit_queries.event_usage(reader, "org-4711", None, None, 10).events

    starting_log = list(ledger.log)
    try:
        with psycopg.connect(ledger.service, autocommit=True) as reader, repeating(write), repeating(read):
            for _ in range(3):
                rebuild(ledger.owner, projections_named(ALL), batch_size=25)
        end = len(ledger.log)
        deadline = threading.Event()
        for _ in range(400):
            if credit_queries.positions(ledger.connection).position >= end:
                break
            deadline.wait(0.05)
    finally:
        runner.stop()
        live.join()

    assert generations(ledger) == [4] * len(ALL)
    ledger.assert_projected()


def test_an_old_runner_is_fenced(ledger: Ledger, account: Account) -> None:
    with Projector(ledger.service, ALL_PROJECTIONS) as old:
        rebuild(ledger.owner, projections_named(ALL))
        account.charge(3)
        ledger.append(account)
        with pytest.raises(ProjectionCheckpointConflict):
            old.catch_up()
        old.load_positions()
        old.catch_up()
    ledger.assert_projected()


def test_an_interrupted_rebuild_can_be_started_again(
    ledger: Ledger, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for step in ("analyze", "replace_table"):
        with monkeypatch.context() as patch:
            patch.setattr(rebuilding, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                rebuild(ledger.owner, projections_named(ALL))
        ledger.assert_projected()

    rebuild(ledger.owner, projections_named(ALL))
    ledger.assert_projected()
    assert generations(ledger) == [2] * len(ALL)


def test_it_waits_for_a_long_reader_and_then_gives_up(
    ledger: Ledger, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "_SWAP_ATTEMPTS", 2)
    monkeypatch.setattr(rebuilding, "_SWAP_PAUSE_S", 0.01)
    with psycopg.connect(ledger.owner) as reader:
        reader.execute("SELECT 1 FROM projections.usage_days")
        with pytest.raises(RebuildConflict):
            rebuild(ledger.owner, projections_named(ALL))

    ledger.assert_projected()
    rebuild(ledger.owner, projections_named(ALL))
    ledger.assert_projected()


def test_a_second_rebuild_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(*_: object) -> None:
        with pytest.raises(RebuildConflict):
            rebuild(ledger.owner, projections_named(ALL))

    monkeypatch.setattr(rebuilding, "analyze", second)
    rebuild(ledger.owner, projections_named(ALL))


@pytest.mark.parametrize("names", [[], ["balance", "photos"]])
def test_unknown_projections_are_refused(ledger: Ledger, names: list[str]) -> None:
    with pytest.raises(InvalidInput):
        rebuild(ledger.owner, projections_named(names))


def test_the_next_rebuild_finds_the_lock_free_immediately(ledger: Ledger) -> None:
    with psycopg.connect(ledger.owner, autocommit=True) as connection:
        with rebuild_lock(connection):
            pass
        with psycopg.connect(ledger.owner, autocommit=True) as other, rebuild_lock(other):
            pass
