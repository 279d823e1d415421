"""Tests of the auditor: it accepts a consistent ledger, and finds any table value that is off by one."""

from __future__ import annotations

import pytest

from tests.auditor.conftest import Case, Connection


def test_a_consistent_ledger_has_no_differences(case: Case, connection: Connection) -> None:
    assert case.auditor.differences(connection, case.ingested.letters) == []


def test_there_is_something_to_audit_in_every_table(connection: Connection) -> None:
    for table in (*NUMBERS, "ledger.events", "ledger.snapshots", "ledger.parked_messages"):
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None, table
        assert row[0] > 0, table


NUMBERS = {
    "projections.balances": "balance granted purchased refunded charged version position",
    "projections.transactions": "credits photos first_version last_version",
    "projections.usage_months": "credits photos runs events",
    "projections.usage_days": "credits photos",
    "projections.event_usage": "credits photos runs",
    "projections.event_totals": "credits photos runs",
    "projections.positions": "position",
    "ledger.consumer_positions": "next_offset",
}


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, columns in NUMBERS.items() for column in columns.split()]
)
@pytest.mark.parametrize("change", [1, -1])
def test_it_notices_a_number_that_is_off_by_one(
    case: Case, connection: Connection, table: str, column: str, change: int
) -> None:
    name = table.partition(".")[2]
    where = "WHERE kind = 'usage'" if name == "transactions" else ""
    connection.execute(
        f'UPDATE {table} SET "{column}" = "{column}" + %s'
        f" WHERE ctid = (SELECT ctid FROM {table} {where} LIMIT 1)",
        [change],
    )
    (difference,) = case.auditor.differences(connection, case.ingested.letters)
    label = "usage" if name == "transactions" else name
    assert difference.startswith(f"{label}[")
    assert f".{column} is " in difference


TEXTS = {
    "balances": "plan = 'pro'; time_zone = 'Asia/Tokyo'; organisation_id = 'org-other'",
    "usage": "type = 'purchase'; occurred_at = occurred_at - interval '1 microsecond'; actor = 'someone';"
    " recorded_at = recorded_at + interval '1 microsecond'; month = month + interval '1 month';"
    " usage_types = usage_types || '{more}'::text[]; event_ids = event_ids || 99::bigint;"
    " event_name = event_name || '!'",
    "additions": "type = 'refund'; credits = credits + 1; actor = 'someone';"
    " occurred_at = occurred_at + interval '1 second'",
    "event_usage": "event_name = event_name || '!';"
    " first_occurred_at = first_occurred_at - interval '1 microsecond';"
    " last_occurred_at = last_occurred_at + interval '1 microsecond'",
    "event_totals": "event_name = event_name || '!';"
    " first_occurred_at = first_occurred_at - interval '1 microsecond';"
    " last_occurred_at = last_occurred_at + interval '1 microsecond'",
}
PLACES = {
    "usage": ("transactions", "WHERE kind = 'usage'"),
    "additions": ("transactions", "WHERE kind = 'addition'"),
}


@pytest.mark.parametrize(
    ("label", "change"),
    [(label, change.strip()) for label, changes in TEXTS.items() for change in changes.split(";")],
)
def test_it_notices_a_wrong_text_or_date(case: Case, connection: Connection, label: str, change: str) -> None:
    table, where = PLACES.get(label, (label, ""))
    connection.execute(
        f"UPDATE projections.{table} SET {change}"
        f" WHERE ctid = (SELECT ctid FROM projections.{table} {where} LIMIT 1)"
    )
    (difference,) = case.auditor.differences(connection, case.ingested.letters)
    assert difference.startswith(f"{label}[")


ROWS = {
    "balances": ("balances", ""),
    "usage": ("transactions", "WHERE kind = 'usage'"),
    "additions": ("transactions", "WHERE kind = 'addition'"),
    "usage_months": ("usage_months", ""),
    "usage_days": ("usage_days", ""),
    "event_usage": ("event_usage", ""),
    "event_totals": ("event_totals", ""),
}


@pytest.mark.parametrize("label", ROWS)
def test_it_notices_a_row_without_an_organisation(case: Case, connection: Connection, label: str) -> None:
    table, where = ROWS[label]
    connection.execute(
        f"INSERT INTO projections.{table}"
        f" SELECT (json_populate_record(held, json_build_object('stream', gen_random_uuid()))).*"
        f" FROM projections.{table} AS held {where} LIMIT 1"
    )
    (difference,) = case.auditor.differences(connection, case.ingested.letters)
    assert difference.startswith(f"{label}[")
    assert difference.endswith("is not to be there")


@pytest.mark.parametrize("label", ROWS)
def test_it_notices_a_lost_row(case: Case, connection: Connection, label: str) -> None:
    table, where = ROWS[label]
    connection.execute(
        f"DELETE FROM projections.{table} WHERE ctid = (SELECT ctid FROM projections.{table} {where} LIMIT 1)"
    )
    (difference,) = case.auditor.differences(connection, case.ingested.letters)
    assert difference.startswith(f"{label}[")
    assert difference.endswith("is missing")


@pytest.mark.parametrize("table", ["consumer_positions", "parked_messages"])
def test_it_notices_a_lost_row_of_another_ledger_table(
    case: Case, connection: Connection, table: str
) -> None:
    connection.execute(f"DELETE FROM ledger.{table} WHERE ctid = (SELECT ctid FROM ledger.{table} LIMIT 1)")
    (difference,) = case.auditor.differences(connection, case.ingested.letters)
    assert difference.startswith(f"{table}[")
    assert difference.endswith("is missing")


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("organisation_id", "'org-other'"),
        ("record_value", r"record_value || '\x20'::bytea"),
        ("record_key", r"record_key || '\x20'::bytea"),
    ],
)
def test_it_notices_a_changed_parked_message(
    case: Case, connection: Connection, column: str, change: str
) -> None:
    connection.execute(
        f"UPDATE ledger.parked_messages SET {column} = {change}"
        " WHERE ctid = (SELECT ctid FROM ledger.parked_messages LIMIT 1)"
    )
    (difference,) = case.auditor.differences(connection, case.ingested.letters)
    assert difference.startswith("parked_messages[")
    assert f".{column} is " in difference
