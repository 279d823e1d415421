"""Exports of both lists."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from api.pages.credits import exports
from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser


def rows_of(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200
    return list(csv.DictReader(io.StringIO(response.text)))


def test_every_run_is_in_the_file(
    member: Browser, studio: str, ledger_api: LedgerApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "ROWS_PER_PAGE", 3)
    for number in range(8):
        ledger_api.charge(studio, f"more-{number}", 1, datetime.now(UTC) - timedelta(hours=1 + number))
    ledger_api.catch_up()
    response = member.raw("/credits/export/usage.csv")
    assert response.headers["content-disposition"].startswith('attachment; filename="usage-')
    rows = rows_of(response)
    assert {row["reference"] for row in rows} == {"run-1", "run-2", *(f"more-{n}" for n in range(8))}
    assert len(rows) == 10
    assert sum(int(row["credits"]) for row in rows) == -5_208
    lines = [json.loads(line) for line in member.raw("/credits/export/usage.jsonl").text.splitlines()]
    assert [line["reference"] for line in lines] == [row["reference"] for row in rows]
    assert lines[0]["event_ids"] == [1042]


def test_purchases_have_their_payment(member: Browser) -> None:
    (bought, free) = rows_of(member.raw("/credits/export/purchases.csv"))
    assert (bought["type"], bought["gateway"], bought["order_id"]) == ("Purchase", "Razorpay", "order_7")
    assert (bought["amount_minor"], bought["tax_minor"], bought["currency"]) == ("18750000", "3375000", "INR")
    assert (free["type"], free["credits"]) == ("Free Credits", "200")
    assert bought["local_time"].endswith("+05:30")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(member: Browser, studio: str, ledger_api: LedgerApi, start: str) -> None:
    formula = f'{start}HYPERLINK("https://evil.example")'
    with psycopg.connect(ledger_api.conninfo) as connection:
        connection.execute(
            "UPDATE projections.transactions SET event_name = %s FROM projections.balances"
            " WHERE balances.stream = transactions.stream AND organisation_id = %s AND kind = 'usage'",
            [formula, studio],
        )
    for row in rows_of(member.raw("/credits/export/usage.csv")):
        assert row["event"] == f"'{formula}"
        assert int(row["credits"]) < 0  # our own numbers stay numbers


@pytest.mark.parametrize("name", ["usage.xml", "people.csv", "usage.csv.jsonl"])
def test_there_are_no_other_files(member: Browser, name: str) -> None:
    assert member.raw(f"/credits/export/{name}").status_code in (404, 422)


def test_members_of_other_organisations_get_no_file(member: Browser, organisation: str) -> None:
    foreign = member.raw("/credits/export/usage.csv", organisation=organisation.rpartition("/")[2])
    assert foreign.status_code == 404
