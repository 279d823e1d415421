"""Row-level security behind the API's checks: without these, a member still sees only one organisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from api.http import permissions
from domain.shared.stream_keys import stream_id
from projections.query.row_security import READER_ROLE, restrict_to_organisation
from tests.integration.api.invoicing.test_invoices_api import DETAILS
from tests.integration.api.ledger_api import LedgerApi, problem_of

TODAY = datetime.now(UTC).date()
READS = [
    "balance",
    "balance?as_of=NOW",
    "balance?min_position=1",
    "usage-summary",
    f"daily-usage?from={TODAY}&to={TODAY}",
    "transactions",
    "transactions/run-1/charges",
    "events",
    "subscription",
    "holds",
    "billing-details",
    "invoices",
    "holds/hold-4",  # after opening, trial and charge
    "payments",
]
TABLES = [
    "projections.balances",
    "projections.holds",
    "projections.payments",
    "projections.transactions",
    "projections.usage_months",
    "projections.usage_days",
    "projections.event_usage",
    "projections.event_totals",
    "ledger.billing_details",
]


@dataclass
class TwoOrganisations:
    """Two organisations with usage, by path."""

    mine: str
    other: str


@pytest.fixture
def two_organisations(client: Any, organisation: str, ledger_api: LedgerApi) -> TwoOrganisations:
    other = organisation.replace("org-", "other-")
    client.put(other, json={"time_zone": "UTC", "currency": "USD"})
    for path in (organisation, other):
        ledger_api.charge(path.rpartition("/")[2], "run-1", 50)
        placed = client.post(
            f"{path}/holds",
            json={"run_id": "run-2", "credits": 5, "mode": "up_to"},
            headers=ledger_api.bearer("pipeline-1", roles=["service"]),
        )
        assert placed.json()["hold_id"] == "hold-4", placed.text
        client.put(f"{path}/billing-details", json=DETAILS).raise_for_status()
        asked = {"amount_minor": 100, "remark": "a banner", "gateway": "razorpay"}
        client.post(f"{path}/custom-payments", json=asked).raise_for_status()
    ledger_api.catch_up()
    return TwoOrganisations(organisation, other)


@pytest.fixture
def unchecked(
    two_organisations: TwoOrganisations, ledger_api: LedgerApi, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A member of one organisation, in an app whose permission check accepts every caller."""
    monkeypatch.setattr(permissions, "check_access", lambda *_: None)
    mine = {two_organisations.mine.rpartition("/")[2]: "member"}
    with ledger_api.client(headers=ledger_api.bearer("u-1", organisations=mine)) as client:
        yield client


@pytest.mark.parametrize("read", READS)
def test_reads_without_the_check_leak_nothing(
    unchecked: Any, two_organisations: TwoOrganisations, read: str
) -> None:
    read = read.replace("NOW", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")
    assert unchecked.get(f"{two_organisations.mine}/{read}").status_code == 200
    foreign = unchecked.get(f"{two_organisations.other}/{read}")
    assert foreign.status_code == 404
    assert problem_of(foreign) == "organisation-unknown"


def test_a_quote_without_the_check_leaks_nothing(unchecked: Any, two_organisations: TwoOrganisations) -> None:
    assert unchecked.post(f"{two_organisations.mine}/quotes", json={"credits": 1}).status_code == 200
    foreign = unchecked.post(f"{two_organisations.other}/quotes", json={"credits": 1})
    assert problem_of(foreign) == "organisation-unknown"


@pytest.fixture
def connection(ledger_api: LedgerApi) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(ledger_api.conninfo, autocommit=True) as connection:
        yield connection


def streams(connection: psycopg.Connection[Any], table: str) -> set[Any]:
    query = sql.SQL("SELECT stream FROM {}").format(sql.Identifier(*table.split(".")))
    return {stream for (stream,) in connection.execute(query).fetchall()}


def charges(connection: psycopg.Connection[Any]) -> set[Any]:
    query = "SELECT originator_id FROM ledger.events_in_sight"
    return {stream for (stream,) in connection.execute(query).fetchall()}


@pytest.mark.parametrize("table", TABLES)
def test_a_reader_sees_rows_of_one_organisation(
    connection: psycopg.Connection[Any], two_organisations: TwoOrganisations, table: str
) -> None:
    mine = two_organisations.mine.rpartition("/")[2]
    assert len(streams(connection, table)) >= 2
    with restrict_to_organisation(connection, mine):
        assert streams(connection, table) == {stream_id(mine)}
        assert charges(connection) == {stream_id(mine)}
    with restrict_to_organisation(connection, None):
        assert streams(connection, table) == set()
        assert charges(connection) == set()
    assert len(streams(connection, table)) >= 2


def test_a_reader_that_names_no_organisation_sees_nothing(
    connection: psycopg.Connection[Any], two_organisations: TwoOrganisations
) -> None:
    connection.execute(f"SET ROLE {READER_ROLE}")
    assert streams(connection, "projections.balances") == set()
    assert charges(connection) == set()


def test_every_readable_table_of_organisations_has_row_security(
    connection: psycopg.Connection[Any],
) -> None:
    walled = connection.execute("""
        SELECT concat(relnamespace::regnamespace, '.', relname)
        FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid
        WHERE relrowsecurity AND polname = 'own_rows'
    """).fetchall()
    of_organisations = connection.execute(
        """
        SELECT concat(relnamespace::regnamespace, '.', relname)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relkind = 'r' AND attname = 'stream'
            AND relnamespace::regnamespace::text IN ('ledger', 'projections')
            AND has_column_privilege(%s, attrelid, attnum, 'SELECT')
        """,
        [READER_ROLE],
    ).fetchall()
    assert sorted(walled) == sorted(of_organisations)
    assert {name for (name,) in walled} >= set(TABLES)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT state FROM ledger.events",
        "SELECT * FROM ledger.snapshots",
        "SELECT * FROM ledger.api_keys",
        "SELECT salt FROM ledger.billing_details",
        "SELECT * FROM ledger.people",
        "SELECT * FROM ledger.webhook_endpoints",
        "SELECT * FROM ledger.webhook_deliveries",
        "SELECT * FROM ledger.idempotency_keys",
        "SELECT * FROM ledger.parked_messages",
    ],
)
def test_a_reader_sees_nothing_else(connection: psycopg.Connection[Any], statement: str) -> None:
    with restrict_to_organisation(connection, "org-1"), pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_a_reader_writes_nothing(
    connection: psycopg.Connection[Any], two_organisations: TwoOrganisations
) -> None:
    mine = two_organisations.mine.rpartition("/")[2]
    with restrict_to_organisation(connection, mine), pytest.raises(errors.ReadOnlySqlTransaction):
        connection.execute("UPDATE projections.balances SET balance = 1")
    connection.execute(f"SET ROLE {READER_ROLE}")
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute("UPDATE projections.balances SET balance = 1")
