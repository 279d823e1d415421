"""The check of a live system finds inconsistent data, and has no findings for consistent data."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from domain.credits.organisation import Organisation, evolve
from domain.credits.organisation_state import OrganisationSnapshot
from domain.shared.aggregate import EventEnvelope
from projections.audit import invariants
from projections.audit.findings import FINDINGS_MAX, Difference, Finding
from projections.credits.balance import BalanceProjection
from projections.engine.projector import Projector
from tests.histories import CODEC, Account
from tests.integration.projections.conftest import Ledger


@pytest.fixture
def account(ledger: Ledger) -> Account:
    account = Account(trial_credits=200)
    charge = account.charge(80, event_id=1)
    account.charge(300, "run-89", event_id=2)
    account.refund(charge, 30)
    account.purchase(1_000)
    ledger.append(account)
    ledger.project()
    return account


def checks(ledger: Ledger) -> set[str]:
    return {finding.check for finding in invariants.check(ledger.connection)}


def test_consistent_data_has_no_findings(ledger: Ledger, account: Account) -> None:
    assert checks(ledger) == set()


def test_an_empty_database_has_no_findings(ledger: Ledger) -> None:
    assert checks(ledger) == set()


def test_projections_may_be_behind_and_at_different_positions(ledger: Ledger, account: Account) -> None:
    account.charge(5)
    ledger.append(account)
    with Projector(ledger.service, [BalanceProjection()]) as projector:
        projector.catch_up()
    account.charge(5)
    ledger.append(account)

    assert checks(ledger) == set()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE projections.balances SET balance = balance + 1", {"balance"}),
        ("UPDATE projections.balances SET charged = 0, balance = balance + charged", {"balance"}),
        ("UPDATE projections.balances SET version = 1", {"balance"}),
        ("DELETE FROM projections.balances", {"balance"}),
        ("UPDATE projections.positions SET position = 99", {"position"}),
        ("UPDATE projections.transactions SET credits = credits - 1 WHERE reference = 'run-88'",
         {"statement", "month"}),
        ("DELETE FROM projections.transactions WHERE type = 'purchase'", {"statement"}),
        ("DELETE FROM projections.usage_months", {"month"}),
        ("UPDATE projections.usage_months SET runs = runs + 1", {"month"}),
        ("UPDATE projections.usage_months SET events = 1", {"month"}),
        ("UPDATE projections.usage_days SET credits = credits + 1", {"month"}),
        ("UPDATE projections.event_usage SET credits = credits + 1", {"month", "event"}),
        ("DELETE FROM projections.event_totals WHERE event_id = 1", {"event"}),
        ("UPDATE projections.balances SET stream = gen_random_uuid()", {"balance", "log"}),
    ],
)  # fmt: skip
def test_damage_is_found(ledger: Ledger, account: Account, damage: str, found: set[str]) -> None:
    ledger.connection.execute(damage.encode())

    assert checks(ledger) == found


def test_a_forged_log_is_found(ledger: Ledger, account: Account) -> None:
    ledger.connection.execute("ALTER TABLE ledger.events DISABLE TRIGGER events_are_facts")
    ledger.connection.execute("DELETE FROM ledger.events WHERE originator_version = 3")

    assert checks(ledger) == {"replay"}


def keep(
    ledger: Ledger, snapshot: EventEnvelope, topic: str = "organisation_snapshot.v1", **forged: Any
) -> None:
    """Store a snapshot, unchanged or with other fields."""
    assert isinstance(snapshot.event, OrganisationSnapshot)
    state = CODEC.encode(msgspec.structs.replace(snapshot.event, **forged))
    ledger.connection.execute(
        "INSERT INTO ledger.snapshots VALUES (%s, %s, %s, %s)",
        [snapshot.originator_id, snapshot.originator_version, topic, state],
    )


def snapshots(account: Account) -> list[EventEnvelope]:
    """Return a snapshot of every version of an account."""
    organisation: Organisation | None = None
    taken = []
    for envelope in account.history:
        organisation = evolve(organisation, envelope)
        taken.append(organisation.snapshot())
    return taken


def found_in(ledger: Ledger) -> list[Finding]:
    return invariants.check(ledger.connection)


def test_correct_snapshots_have_no_findings(ledger: Ledger, account: Account) -> None:
    account.charge(7, "run-90", rate_millionths=300_000)
    account.charge(7, "run-91", rate_millionths=300_000)
    account.charge(7, "run-90", rate_millionths=300_000)
    ledger.append(account)
    ledger.project()
    for snapshot in snapshots(account):
        keep(ledger, snapshot)

    assert found_in(ledger) == []


@pytest.mark.parametrize(
    ("forged", "index"),
    [
        ({"lots": []}, 1),
        ({"overdraft": 7}, -1),
        ({"price_millionths": 1}, 4),
        ({"time_zone": "Asia/Tokyo", "organisation_id": "org-1"}, -1),
    ],
)
def test_a_forged_snapshot_is_found(
    ledger: Ledger, account: Account, forged: dict[str, Any], index: int
) -> None:
    true = snapshots(account)[index]
    keep(ledger, true, **forged)

    (finding,) = found_in(ledger)

    assert (finding.check, finding.table, finding.organisation_id) == (
        "snapshot",
        "ledger.snapshots",
        "org-4711",
    )
    assert finding.row == {
        "originator_id": str(true.originator_id),
        "originator_version": true.originator_version,
    }
    assert finding.columns == {
        field: Difference(value, getattr(true.event, field)) for field, value in forged.items()
    }


def test_impossible_snapshots_are_found(ledger: Ledger, account: Account) -> None:
    taken = snapshots(account)
    keep(ledger, taken[0], topic="credits_granted.v1")
    keep(ledger, taken[1], topic="nonsense.v1")
    keep(ledger, EventEnvelope(account.organisation.id, 99, taken[2].event))

    found = found_in(ledger)

    assert [finding.check for finding in found] == ["snapshot"] * 3
    assert {finding.organisation_id for finding in found} == {"org-4711"}


def test_findings_name_the_organisation_and_print_as_json(ledger: Ledger, account: Account) -> None:
    ledger.connection.execute("UPDATE projections.usage_months SET runs = runs + 1")

    (finding,) = found_in(ledger)

    record = msgspec.json.decode(str(finding))
    assert (record["check"], record["organisation_id"]) == ("month", "org-4711")
    assert "\n" not in str(finding)


def test_many_findings_are_cut_off_and_counted(ledger: Ledger) -> None:
    accounts = [Account(f"org-{number}", trial_credits=5) for number in range(FINDINGS_MAX + 3)]
    ledger.append(*accounts)
    ledger.project()
    ledger.connection.execute("UPDATE projections.balances SET balance = balance + 1")

    found = found_in(ledger)

    assert len(found) == FINDINGS_MAX + 1
    assert found[-1] == Finding("balance", None, "and 3 more")
