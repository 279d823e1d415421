"""The comparison with the log finds errors that sums cannot find, and leaves no tables behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from projections.audit import invariants, row_comparison
from projections.audit.findings import FINDINGS_MAX, Difference, Finding
from projections.audit.row_comparison import compare_with_log
from projections.credits.balance import BalanceProjection
from projections.engine.errors import RebuildConflict
from projections.engine.projector import Projector
from projections.engine.rebuild import rebuild
from projections.engine.runner import ProjectionRunner
from projections.engine.shadow_tables import SHADOW_SCHEMA
from projections.registry import ALL_PROJECTIONS, projections_named
from tests.histories import START, Account
from tests.integration.projections.conftest import Ledger

ALL_TABLES = ["balances", "transactions", "usage_months", "usage_days", "event_usage", "event_totals"]


@pytest.fixture
def account(ledger: Ledger) -> Account:
    account = Account(trial_credits=200)
    charge = account.charge(80, event_id=1)
    account.charge(300, "run-89", at=START + timedelta(days=1), event_id=2)
    account.refund(charge, 30)
    account.purchase(1_000)
    other = Account("org-4712", trial_credits=5)
    other.charge(7)
    ledger.append(account, other)
    ledger.project()
    return account


def execute(ledger: Ledger, statement: str) -> None:
    ledger.connection.execute(statement.encode())


def compared(ledger: Ledger) -> list[Finding]:
    found = compare_with_log(ledger.owner)
    assert ledger.one(f"SELECT count(*) FROM pg_namespace WHERE nspname = '{SHADOW_SCHEMA}'") == 0
    return found


def test_consistent_data_has_no_findings(ledger: Ledger, account: Account) -> None:
    assert compared(ledger) == []


def test_an_empty_database_has_no_findings(ledger: Ledger) -> None:
    assert compared(ledger) == []


def test_projections_may_be_behind_and_at_different_positions(ledger: Ledger, account: Account) -> None:
    account.charge(5)
    ledger.append(account)
    with Projector(ledger.service, [BalanceProjection()]) as projector:
        projector.catch_up()
    account.charge(5)
    ledger.append(account)

    assert compared(ledger) == []


@pytest.mark.parametrize(
    ("table", "change", "columns"),
    [
        ("balances", "price_millionths = price_millionths + 1", {"price_millionths"}),
        ("balances", "plan = 'enterprise'", {"plan"}),
        ("balances", "plan_expires_at = now()", {"plan_expires_at"}),
        ("balances", "time_zone = 'Asia/Tokyo'", {"time_zone"}),
        ("balances", "currency = 'USD', opened_at = now()", {"currency", "opened_at"}),
        ("balances", "granted = granted - 5, purchased = purchased + 5", {"granted", "purchased"}),
        ("balances", "position = position + 1", {"position"}),
        ("balances", "organisation_id = 'org-1' || stream", {"organisation_id"}),
        ("transactions", "occurred_at = now(), actor = 'u-666'", {"occurred_at", "actor"}),
        ("transactions", "actor = NULL", {"actor"}),
        ("transactions", "details = 'x'", {"details"}),
        ("transactions", "usage_types = '{}', event_ids = '{7,7}'", {"usage_types", "event_ids"}),
        ("transactions", "recorded_at = recorded_at + interval '1 microsecond'", {"recorded_at"}),
        ("event_usage", "event_name = 'Another'", {"event_name"}),
        ("event_usage", "first_occurred_at = now()", {"first_occurred_at"}),
        ("event_totals", "last_occurred_at = now()", {"last_occurred_at"}),
    ],
)  # fmt: skip
def test_changed_columns_are_found_and_named(
    ledger: Ledger, account: Account, table: str, change: str, columns: set[str]
) -> None:
    execute(ledger, f"UPDATE projections.{table} SET {change}")

    found = compared(ledger)

    assert len(found) == ledger.one(f"SELECT count(*) FROM projections.{table}")
    assert {finding.table for finding in found} == {f"projections.{table}"}
    assert {finding.organisation_id for finding in found} == {"org-4711", "org-4712"}
    for finding in found:
        assert finding.columns is not None
        if table != "transactions":
            assert finding.columns.keys() == columns
        assert finding.columns.keys() <= columns


def test_credits_shifted_between_runs_of_a_month_are_found(ledger: Ledger, account: Account) -> None:
    for run, by in (("run-88", 1), ("run-89", -1)):
        execute(
            ledger,
            f"UPDATE projections.transactions SET credits = credits + {by} WHERE reference = '{run}'"
            " AND stream = (SELECT stream FROM projections.balances WHERE organisation_id = 'org-4711')",
        )

    assert invariants.check(ledger.connection) == []
    first, second = compared(ledger)
    stream = account.organisation.id
    assert first.row == {"stream": str(stream), "kind": "usage", "reference": "run-88"}
    assert first.columns == {"credits": Difference(found=-79, log=-80)}
    assert second.columns == {"credits": Difference(found=-301, log=-300)}
    assert json.loads(str(second)) == {
        "check": "rows",
        "stream": str(stream),
        "detail": "the log makes other values of credits",
        "organisation_id": "org-4711",
        "table": "projections.transactions",
        "row": {"stream": str(stream), "kind": "usage", "reference": "run-89"},
        "columns": {"credits": {"found": -301, "log": -300}},
    }


@pytest.mark.parametrize("table", ALL_TABLES)
def test_missing_and_invented_rows_are_found(ledger: Ledger, account: Account, table: str) -> None:
    execute(
        ledger,
        f"UPDATE projections.{table} SET stream = gen_random_uuid()"
        f" WHERE stream = '{account.organisation.id}'",
    )

    found = [finding for finding in compared(ledger) if finding.table == f"projections.{table}"]

    details = [finding.detail for finding in found]
    assert set(details) == {"the row is missing", "the log makes no such row"}
    assert details.count("the row is missing") == details.count("the log makes no such row")
    missing = {each.organisation_id for each in found if each.detail == "the row is missing"}
    assert missing == {"org-4711"}


def test_many_findings_are_cut_off_and_counted(ledger: Ledger) -> None:
    account = Account()
    for number in range(FINDINGS_MAX + 20):
        account.charge(1, f"run-{number}")
    ledger.append(account)
    ledger.project()
    execute(ledger, "UPDATE projections.transactions SET actor = 'u-666'")

    found = compared(ledger)

    assert len(found) == FINDINGS_MAX + 1
    assert found[-1].detail == "and 20 more rows of this table"


def test_a_forged_log_is_found(ledger: Ledger, account: Account) -> None:
    execute(ledger, "ALTER TABLE ledger.events DISABLE TRIGGER events_are_facts")
    execute(ledger, "DELETE FROM ledger.events WHERE originator_version = 1 AND notification_id = 1")

    details = {finding.check: finding.detail for finding in compared(ledger)}

    assert "never opened" in details["rows"]
    assert "replay" in details


def test_a_lost_primary_key_is_found(ledger: Ledger, account: Account) -> None:
    execute(ledger, "ALTER TABLE projections.usage_days DROP CONSTRAINT usage_days_pkey")

    (finding,) = compared(ledger)

    assert finding.table == "projections.usage_days"


@contextmanager
def in_background(work: Any) -> Iterator[None]:
    """Run in another thread, and raise its error at the end."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert errors == []


def test_nothing_is_found_while_a_writer_and_a_runner_work(ledger: Ledger, account: Account) -> None:
    runner = ProjectionRunner(ledger.service, ALL_PROJECTIONS, batch_size=20)
    stop = threading.Event()

    def write() -> None:
        number = 0
        with psycopg.connect(ledger.owner, autocommit=True) as connection:
            writing = Ledger(ledger.owner, ledger.service, connection)
            while not stop.is_set():
                for _ in range(5):
                    account.charge(number % 5, f"run-{number // 20}", event_id=number % 4)
                    number += 1
                writing.append(account)
                stop.wait(0.01)

    with in_background(runner.run), in_background(write):
        try:
            for _ in range(5):
                before = ledger.one("SELECT min(position) FROM projections.positions")
                assert compare_with_log(ledger.owner, batch_size=25) == []
                assert ledger.one("SELECT min(position) FROM projections.positions") > before
        finally:
            stop.set()
            runner.stop()


@pytest.mark.parametrize("step", ["analyze", "_fold", "_differing"])
def test_an_interrupted_comparison_leaves_no_tables(
    ledger: Ledger, account: Account, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(row_comparison, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare_with_log(ledger.owner)

    assert ledger.one(f"SELECT count(*) FROM pg_namespace WHERE nspname = '{SHADOW_SCHEMA}'") == 0
    assert compared(ledger) == []


def test_the_tables_of_a_killed_comparison_are_dropped(
    ledger: Ledger, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(row_comparison, "drop_shadow_schema", lambda _: None)
        compare_with_log(ledger.owner)
    assert ledger.one(f"SELECT count(*) FROM pg_namespace WHERE nspname = '{SHADOW_SCHEMA}'") == 1

    assert compared(ledger) == []


def test_a_rebuild_and_a_comparison_refuse_each_other(
    ledger: Ledger, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def others(*_: object) -> None:
        for other in (
            lambda: rebuild(ledger.owner, projections_named(["balance"])),
            lambda: compare_with_log(ledger.owner),
        ):
            with pytest.raises(RebuildConflict):
                other()
            refused.append(other)

    for module in ("audit.row_comparison", "engine.rebuild"):
        monkeypatch.setattr(f"projections.{module}.analyze", others)
    assert compare_with_log(ledger.owner) == []
    rebuild(ledger.owner, projections_named(["balance"]))

    assert len(refused) == 4
    ledger.assert_projected()


def test_it_gives_up_if_the_positions_are_never_free(
    ledger: Ledger, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_comparison, "_HOLD_TIMEOUT", "50ms")
    with psycopg.connect(ledger.owner) as holder:
        holder.execute("SELECT 1 FROM projections.positions FOR UPDATE")
        with pytest.raises(RebuildConflict, match="never free"):
            compare_with_log(ledger.owner)

    assert compared(ledger) == []


def test_it_needs_the_owner(ledger: Ledger, account: Account) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        compare_with_log(ledger.service)
