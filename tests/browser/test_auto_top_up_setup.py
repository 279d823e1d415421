"""Auto top-up in a browser: a purchase switches it on, and then it adds credits automatically."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.browser.test_purchase import at_gateway

pytestmark = pytest.mark.browser

COMES_WITHIN_MS = 30_000


def put_billing_details(page: Page) -> None:
    page.get_by_label("Company or personal name").fill("Lens and Lace GmbH")
    page.get_by_label("Email").fill("accounts@lens.example")
    address = page.get_by_role("group", name="Billing address")
    address.get_by_label("Country").select_option("Germany")
    address.get_by_label("Street and house").fill("Invalidenstr. 1")
    address.get_by_label("City").fill("Berlin")
    page.get_by_role("button", name="Save billing details").click()
    expect(page.get_by_text("Invalidenstr. 1, Berlin")).to_be_visible()


def test_credits_are_added_automatically(open_page: Open) -> None:
    page = open_page("admin", organisation="lens-and-lace")
    page.get_by_role("link", name="Auto top-up").click()
    expect(page.get_by_role("heading", name="Auto top-up is off")).to_be_visible()
    page.get_by_role("link", name="Add your billing details").click()
    put_billing_details(page)
    page.get_by_role("link", name="Auto top-up").click()
    page.get_by_label("Start a top-up below").fill("900,000")
    page.get_by_label("Credits per top-up").fill("1,000")
    page.get_by_role("button", name="Continue to the first purchase").click()
    expect(page.get_by_text("This purchase switches auto top-up on.")).to_be_visible()
    page.get_by_role("button", name="Continue to payment").click()
    at_gateway(page, "Pay")
    expect(page.locator("#returned-payment")).to_contain_text("Completed")

    page.get_by_role("link", name="Auto top-up").click()
    expect(page.get_by_role("heading", name="Auto top-up is on")).to_be_visible()
    # The balance is far below the threshold: it buys once, and then pauses, because that was not enough.
    held = page.get_by_text("Auto top-up is paused today.")
    for _ in range(COMES_WITHIN_MS // 500):
        if held.is_visible():
            break
        page.wait_for_timeout(500)
        page.reload()
    expect(held).to_be_visible()
    page.get_by_role("link", name="See payment").click()
    expect(page.locator("#returned-payment")).to_contain_text("1,000 credits were added.")
    page.get_by_role("link", name="Auto top-up").click()
    page.get_by_role("button", name="Switch off").click()
    expect(page.get_by_role("heading", name="Auto top-up is off")).to_be_visible()
