"""The Credits page: its contents by role, and its numbers, which equal the API's."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from domain.pricing.plans import Plan
from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser


@pytest.fixture
def api(client: Any, studio: str) -> Any:
    """A function that gets the studio's data from the JSON API."""

    def get(path: str, **query: Any) -> Any:
        response = client.get(f"/v1/organisations/{studio}/{path}", params=query)
        assert response.status_code == 200, response.text
        return response.json()

    return get


def test_its_numbers_equal_those_of_the_api(member: Browser, api: Any) -> None:
    text = member.get("/credits").text
    assert api("balance")["available"] == 120_000
    assert "Available Credits 1,20,000" in text
    for number, month in enumerate(api("usage-summary")["months"]):
        name = f"{date.fromisoformat(month['month'] + '-01'):%B %Y}"
        said = re.search(rf"{name} (Current )?Usage ([\d,]+) Usage transactions (\d+) Events (\d+)", text)
        assert said, name
        assert bool(said[1]) is (number == 0)
        assert int(said[2].replace(",", "")) == month["credits"]
        assert (int(said[3]), int(said[4])) == (month["runs"], month["events"])


def test_a_run_is_a_row_with_its_event(member: Browser, api: Any) -> None:
    page = member.get("/credits")
    assert "−4,000 City Marathon 2026 1042 u-runner" in page.text
    event = member.get(page.links["City Marathon 2026"])
    assert "5,200" in event.text
    assert "Photo Processing 2 5,200" in event.text


def test_the_other_tab_lists_purchases(member: Browser) -> None:
    page = member.get(member.get("/credits").links["Purchase History"])
    assert "+1,25,000" in page.text
    assert "Gateway Razorpay Payment ID pay_studio" in page.text
    assert "Order ID order_7" in page.text
    assert "Free Credits" in page.text


def test_the_price_is_masked_until_shown_and_the_choice_is_stored(
    member: Browser, open_browser: Any, studio: str
) -> None:
    page = member.get("/credits")
    assert "₹1.50" not in page.text
    (show,) = [form for form in page.forms if ("price", "show") in form.buttons]
    shown = member.submit(show, ("price", "show"))
    assert "₹1.50" in shown.text
    elsewhere = open_browser().sign_in("u-member", organisations={studio: "member"})
    shown = elsewhere.get("/credits")
    assert "₹1.50" in shown.text
    (hide,) = [form for form in shown.forms if ("price", "hide") in form.buttons]
    assert "₹1.50" not in elsewhere.submit(hide, ("price", "hide")).text


def test_without_a_price_there_is_no_cost_per_credit(
    member: Browser, client: Any, studio: str, ledger_api: LedgerApi
) -> None:
    assert "Cost per Credit" in member.get("/credits").text
    client.put(f"/v1/organisations/{studio}/price", json={"price_millionths": 0}).raise_for_status()
    ledger_api.catch_up()
    assert "Cost per Credit" not in member.get("/credits").text


@pytest.mark.parametrize(
    ("who", "buttons"),
    [
        ("admin", {"Purchase Credits", "View Billing"}),
        ("member", {"View Billing"}),
        ("staff", {"Add Credits", "View Billing"}),
        ("auditor", {"View Billing"}),
    ],
)
def test_buttons_are_those_of_the_role(
    request: pytest.FixtureRequest, studio: str, who: str, buttons: set[str]
) -> None:
    browser: Browser = request.getfixturevalue(who)
    links = browser.get("/credits", organisation=studio).links
    assert links.keys() & {"Purchase Credits", "View Billing", "Add Credits"} == buttons


def test_custom_billing_hides_the_purchase(
    admin: Browser, client: Any, studio: str, ledger_api: LedgerApi
) -> None:
    client.put(f"/v1/organisations/{studio}/plan", json={"plan": Plan.ENTERPRISE}).raise_for_status()
    ledger_api.catch_up()
    assert "Purchase Credits" not in admin.get("/credits").links


def test_an_organisation_without_usage(open_browser: Any, organisation: str, ledger_api: LedgerApi) -> None:
    ledger_api.catch_up()
    name = organisation.rpartition("/")[2]
    page = open_browser().sign_in("u-9", organisations={name: "member"}).get("/credits")
    assert "No usage yet." in page.text
    assert "No usage in these months: top up only before the next event" in page.text
    assert "No events yet. Enter the number of photos that you expect." in page.text


def test_paused_processing_is_shown_first(member: Browser, studio: str, ledger_api: LedgerApi) -> None:
    assert "Processing is paused" not in member.get("/credits").text
    ledger_api.charge(studio, "run-3", 120_000)
    ledger_api.catch_up()
    assert "Processing is paused. No credits are available" in member.get("/credits").text


def test_a_top_up_is_recommended_for_a_number_of_photos(member: Browser) -> None:
    fits = member.get("/credits", photos="10,000").text
    assert "10,000 photos. With a reserve of 10 %, you need 11,000 credits" in fits
    assert "You have enough credits: 1,09,000 would remain" in fits
    lacks = member.get("/credits", photos="200000").text
    assert "Top up 1,00,000" in lacks
    assert "Your credits may not be enough for the next event." in lacks
    assert "Enter a whole number of photos" in member.get("/credits", photos="many").text


def test_lists_have_pages(member: Browser, studio: str, ledger_api: LedgerApi) -> None:
    for number in range(30):
        ledger_api.charge(studio, f"more-{number}", 1, datetime.now(UTC) - timedelta(hours=1 + number))
    ledger_api.catch_up()
    first = member.get("/credits")
    older = member.get(first.links["Older"])
    assert first.response.text.count('role="row"') == 1 + 25
    assert older.response.text.count('role="row"') == 1 + 7
    assert "Newest" in older.links
    assert "Older" not in older.links


def test_a_cursor_of_another_list_is_an_error_page(member: Browser) -> None:
    assert member.get("/credits", cursor="nonsense").status == 422


def test_the_subscription_tab_has_the_agreed_text(member: Browser) -> None:
    text = member.get("/credits/subscription").text
    assert "Pay As You Go" in text
    assert "Flexible usage-based pricing with no commitment." in text
    assert "No expiry date set. Your plan does not have a fixed expiry." in text


def test_a_plan_that_ends_is_announced(
    member: Browser, client: Any, studio: str, ledger_api: LedgerApi
) -> None:
    ends_at = (datetime.now(UTC) + timedelta(days=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    client.put(f"/v1/organisations/{studio}/plan", json={"plan": "pro", "expires_at": ends_at})
    ledger_api.catch_up()
    for path in ("/credits", "/credits/subscription"):
        assert "Expires on" in member.get(path).text


def test_the_balance_opens_to_its_parts(member: Browser) -> None:
    page = member.get("/credits/balance")
    assert "Purchased +1,25,000" in page.text
    assert "Free Credits and Admin Grants +200" in page.text
    assert "Used −5,200" in page.text
    assert "Purchase •••• 1,25,000 1,20,000" in page.text  # the free lot was drawn first


def test_a_run_opens_to_its_lots(member: Browser) -> None:
    page = member.get("/credits/runs", run="run-1")
    assert "4,000 × 1 −4,000 200 of Free Credits" in page.text
    assert "3,800 of Purchase" in page.text
    assert member.get("/credits/runs", run="no-such").status == 404


def test_a_month_opens_to_its_events(member: Browser) -> None:
    text = member.get(f"/credits/months/{datetime.now(UTC):%Y-%m}").text
    assert "most credits first 1 event" in text
    assert "City Marathon 2026 1042 −5,200 100 % 5,200 2" in text
    assert member.get("/credits/months/1999-01").status == 404


def test_an_event_without_runs_is_unknown(member: Browser) -> None:
    assert member.get("/credits/events/77").status == 404


@pytest.mark.parametrize("plan", ["pay_as_you_go", "pro", "enterprise"])
def test_no_plan_comparison_after_a_choice(
    member: Browser, client: Any, studio: str, ledger_api: LedgerApi, plan: str
) -> None:
    middle = datetime.now(UTC).replace(day=15)
    for photos in (4_000, 3_500, 3_000):
        middle = (middle - timedelta(days=30)).replace(day=15)
        ledger_api.charge(studio, f"run of {middle:%B}", photos, middle)
    client.put(f"/v1/organisations/{studio}/plan", json={"plan": plan}).raise_for_status()
    ledger_api.catch_up()
    compares = plan == "pay_as_you_go"
    text = member.get("/credits").text
    assert "Usage grows steadily" in text
    assert ("compare with Pro" in text) is compares
    assert ("Pay As You Go fits" in text or "See Pro" in text) is compares
