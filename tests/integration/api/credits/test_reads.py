"""Reads: their responses after runs and additions, and their refusals."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from threading import Timer

import msgspec
import pytest

from tests.integration.api.ledger_api import invalid_fields, problem_of


@pytest.fixture
def used(organisation, ledger_api):
    """An organisation with three charges of two runs today, and a run of last month."""
    organisation_id = organisation.rpartition("/")[2]
    last_month = datetime.now(UTC).replace(day=1) - timedelta(days=1)
    ledger_api.charge(organisation_id, "run-old", 7, last_month)
    ledger_api.charge(organisation_id, "run/1", 50)
    ledger_api.charge(organisation_id, "run/1", 30)
    ledger_api.charge(organisation_id, "run-2", 20)
    return organisation


def test_processing_pauses_when_nothing_is_available(client, organisation, ledger_api, read):
    assert read(f"{organisation}/balance")["processing"] == "allowed"
    ledger_api.charge(organisation.rpartition("/")[2], "run", 201)
    balance = read(f"{organisation}/balance")
    assert (balance["available"], balance["balance"], balance["processing"]) == (-1, -1, "paused")


def test_a_balance_as_of_a_moment_comes_from_the_history(client, organisation, ledger_api):
    # No projection has run: the response comes from the history.
    before = datetime.now(UTC)
    ledger_api.charge(organisation.rpartition("/")[2], "run", 50)
    then = client.get(f"{organisation}/balance", params={"as_of": before.isoformat()})
    now = client.get(f"{organisation}/balance", params={"as_of": datetime.now(UTC).isoformat()})
    assert (then.json()["balance"], now.json()["balance"]) == (200, 150)
    assert then.json()["as_of"] == before.isoformat().replace("+00:00", "Z")
    assert int(now.headers["ledger-position"]) == now.json()["position"] > 0


def test_as_of_may_have_an_offset(client, organisation):
    moment = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S")
    response = client.get(f"{organisation}/balance?as_of={moment}%2B05:30")
    assert problem_of(response) == "organisation-unknown"  # it was not open yet at that time


@pytest.mark.parametrize(
    "as_of",
    [
        "yesterday",
        "1700000000",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-13-01T00:00:00Z",
        "9000-01-01T00:00:00Z",
    ],
)
def test_as_of_must_be_a_past_moment(client, organisation, as_of):
    response = client.get(f"{organisation}/balance", params={"as_of": as_of})
    assert problem_of(response) == "invalid-request"
    assert invalid_fields(response) == ["as_of"]


def test_cards_equal_the_sums_of_rows(used, read):
    summary = read(f"{used}/usage-summary")
    assert len(summary["months"]) == 4
    current, last = summary["months"][:2]
    assert current["current"] is True
    assert (current["credits"], current["runs"], current["photos"], current["events"]) == (100, 2, 100, 1)
    assert (last["credits"], last["runs"], last["current"]) == (7, 1, False)
    assert current["month"] == summary["today"][:7]
    assert [month["credits"] for month in summary["months"][2:]] == [0, 0]
    assert len(read(f"{used}/usage-summary", months=36)["months"]) == 36


def test_days_of_a_range(used, read):
    today = datetime.now(UTC).date()
    usage = read(f"{used}/daily-usage", **{"from": today - timedelta(days=1), "to": today})
    assert [day["day"] for day in usage["days"]] == [str(today - timedelta(days=1)), str(today)]
    assert usage["days"][1]["credits"] == 100


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-01-02&to=2026-01-01", "to"),
        ("from=2025-01-01&to=2026-12-31", "to"),
        ("from=2026-01-01", "to"),
        ("to=2026-01-01", "from"),
        ("from=1700000000&to=2026-01-01", "from"),
        ("from=2026-02-30&to=2026-03-01", "from"),
    ],
)
def test_an_invalid_range_of_days_is_refused(client, used, read, query, field):
    read(f"{used}/balance")
    response = client.get(f"{used}/daily-usage?{query}")
    assert problem_of(response) == "invalid-request"
    assert invalid_fields(response) == [field]


def test_a_run_is_one_transaction_that_opens_to_its_charges(used, read):
    page = read(f"{used}/transactions", kind="usage")
    rows = {row["reference"]: row for row in page["transactions"]}
    assert set(rows) == {"run-old", "run/1", "run-2"}
    assert rows["run/1"]["credits"] == -80
    assert rows["run/1"]["occurred_at"].endswith("Z")
    assert rows["run/1"]["usage_types"] == ["photo_processing"]
    charges = read(f"{used}/transactions/run%2F1/charges")
    assert [charge["credits"] for charge in charges["charges"]] == [50, 30]
    assert [charge["version"] for charge in charges["charges"]] == [4, 5]
    assert charges["next_cursor"] is None


@pytest.mark.parametrize("name", ["transactions", "events", "transactions/run%2F1/charges"])
def test_pages_follow_each_other(used, read, client, name):
    whole = read(f"{used}/{name}")
    items = next(value for value in whole.values() if isinstance(value, list))
    found, cursor = [], None
    for _ in range(20):
        page = read(f"{used}/{name}", limit=1, **({"cursor": cursor} if cursor else {}))
        found += next(value for value in page.values() if isinstance(value, list))
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == items


def test_photo_events_of_a_month_and_of_all_time(used, read):
    month = datetime.now(UTC).strftime("%Y-%m")
    of_month = read(f"{used}/events", month=month)
    of_all_time = read(f"{used}/events")
    assert (of_month["month"], of_month["events"][0]["credits"]) == (month, 100)
    assert (of_all_time["month"], of_all_time["events"][0]["credits"]) == (None, 107)
    assert of_all_time["events"][0]["event_id"] == 1042
    assert read(f"{used}/events", month="2020-02")["events"] == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("usage-summary?months=0", "months"),
        ("usage-summary?months=37", "months"),
        ("usage-summary?months=four", "months"),
        ("transactions?kind=other", "kind"),
        ("transactions?limit=0", "limit"),
        ("transactions?limit=501", "limit"),
        ("transactions?cursor=nonsense", "cursor"),
        ("transactions?cursor=", "cursor"),
        ("events?cursor=", "cursor"),
        ("transactions?cursor=%00", "cursor"),
        ("transactions?cursor=%C3%BC", "cursor"),
        ("events?month=2026", "month"),
        ("events?month=2026-13", "month"),
        ("events?month=0000-01", "month"),
        ("events?month=2026-01-01", "month"),
        ("events?cursor=nonsense", "cursor"),
        ("balance?min_position=-1", "min_position"),
        ("balance?min_position=soon", "min_position"),
        ("balance?min_position=9223372036854775808", "min_position"),
        ("balance?min_position=" + "9" * 5000, "min_position"),
        ("balance?min_position=1&min_position=2", "min_position"),
        ("balance?min_postion=1", "min_postion"),
        ("transactions/run/charges?months=1", "months"),
        ("transactions/" + "x" * 129 + "/charges", "run_id"),
        ("transactions/a%00b/charges", "run_id"),
        ("transactions/%FF/charges", "run_id"),
    ],
)
def test_an_invalid_parameter_is_named(client, organisation, read, path, field):
    read(f"{organisation}/balance")
    response = client.get(f"{organisation}/{path}")
    assert response.status_code == 422, response.text
    assert problem_of(response) == "invalid-request"
    assert invalid_fields(response) == [field]


def test_a_cursor_of_another_list_is_refused(client, used, read):
    cursor = read(f"{used}/transactions", limit=1)["next_cursor"]
    response = client.get(f"{used}/events", params={"cursor": cursor})
    assert problem_of(response) == "invalid-request"
    assert invalid_fields(response) == ["cursor"]


def test_a_forged_cursor_never_breaks_the_server(client, used, read):
    read(f"{used}/balance")
    forged = [
        ("transactions", ["transactions", "0001-01-01T00:00:00+14:00", "usage", "a\0b"]),
        ("transactions", ["transactions", "2026-01-01T00:00:00", "usage", "x"]),
        ("transactions", ["transactions", "9999-12-31T23:59:59-14:00", "other", "x"]),
        ("transactions/run%2F1/charges", ["charges", 10**30]),
        ("transactions/run%2F1/charges", ["charges", -(10**30)]),
        ("events", ["events", 10**30, 10**30]),
        ("events", ["events", -1, -1]),
    ]
    for name, content in forged:
        cursor = urlsafe_b64encode(msgspec.json.encode(content)).rstrip(b"=").decode()
        response = client.get(f"{used}/{name}", params={"cursor": cursor})
        assert response.status_code in (200, 422), (name, content, response.text)


def test_a_run_without_usage_is_unknown(client, organisation, read):
    read(f"{organisation}/balance")
    response = client.get(f"{organisation}/transactions/no-such-run/charges")
    assert response.status_code == 404
    assert problem_of(response) == "run-unknown"


@pytest.mark.parametrize(
    "name",
    [
        "balance",
        "balance?as_of=2026-01-01T00:00:00Z",
        "usage-summary",
        "daily-usage?from=2026-01-01&to=2026-01-02",
        "transactions",
        "transactions/run/charges",
        "events",
        "subscription",
    ],
)
def test_reads_of_an_unknown_organisation_are_refused(client, name):
    response = client.get(f"/v1/organisations/nobody/{name}")
    assert response.status_code == 404
    assert problem_of(response) == "organisation-unknown"


def test_a_plan_without_an_end(organisation, read):
    subscription = read(f"{organisation}/subscription")
    assert subscription["plan"] == "trial"
    assert subscription["expires_at"] is None
    assert subscription["expiry"] == "No expiry date set. Your plan does not have a fixed expiry."
    assert subscription["ends_soon"] is False


@pytest.mark.parametrize(
    ("days", "says"), [(31, ("Expires", False)), (29, ("Expires", True)), (-1, ("Expired", True))]
)
def test_the_end_of_a_plan_is_announced_a_month_ahead(ledger_api, organisation, read, days, says):
    verb, ends_soon = says
    ends_at = datetime.now(UTC) + timedelta(days=days)
    earlier = ledger_api.client(clock=lambda: ends_at - timedelta(days=365))
    changed = earlier.put(f"{organisation}/plan", json={"plan": "pro", "expires_at": ends_at.isoformat()})
    assert changed.status_code == 200, changed.text
    ledger_api.catch_up()
    subscription = read(f"{organisation}/subscription")
    assert subscription["expiry"] == f"{verb} on {ends_at:%Y-%m-%d}."
    assert subscription["ends_soon"] is ends_soon


def test_a_write_is_read_back_at_its_position(client, organisation, ledger_api):
    grant = {"credits": 1, "kind": "admin", "reason": "x"}
    position = client.post(f"{organisation}/grants", json=grant).json()["position"]

    behind = client.get(f"{organisation}/balance", params={"min_position": position})
    assert behind.status_code == 503
    assert problem_of(behind) == "projection-behind"
    assert behind.headers["retry-after"] == "1"

    ledger_api.catch_up()
    current = client.get(f"{organisation}/balance", params={"min_position": position})
    assert current.json()["balance"] == 201
    assert int(current.headers["ledger-position"]) >= position


def test_a_read_waits_for_the_projections(organisation, ledger_api):
    with ledger_api.client(wait_limit_s=10) as client:
        grant = {"credits": 1, "kind": "admin", "reason": "x"}
        position = client.post(f"{organisation}/grants", json=grant).json()["position"]
        later = Timer(0.3, ledger_api.catch_up)
        later.start()
        response = client.get(f"{organisation}/balance", params={"min_position": position})
        later.join()
    assert response.status_code == 200
    assert response.json()["balance"] == 201


def test_a_wait_for_a_position_after_the_end_times_out(client, organisation, read):
    read(f"{organisation}/balance")
    response = client.get(f"{organisation}/balance", params={"min_position": 2**63 - 1})
    assert response.status_code == 503
    assert problem_of(response) == "projection-behind"


def test_a_wrong_request_is_refused_without_a_wait(client, organisation):
    response = client.get(f"{organisation}/transactions", params={"min_position": 2**62, "limit": 0})
    assert invalid_fields(response) == ["limit"]


def test_a_read_of_the_history_does_not_wait_for_projections(client, organisation):
    grant = {"credits": 1, "kind": "admin", "reason": "x"}
    position = client.post(f"{organisation}/grants", json=grant).json()["position"]
    query = {"as_of": datetime.now(UTC).isoformat(), "min_position": position}
    assert client.get(f"{organisation}/balance", params=query).json()["balance"] == 201
    query["min_position"] = 2**62
    assert problem_of(client.get(f"{organisation}/balance", params=query)) == "projection-behind"
