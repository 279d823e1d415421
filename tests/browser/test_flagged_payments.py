"""A payment that was paid twice, in a browser: from the list of flags to the refund that settles the flag."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import SCREENSHOTS, Open
from tests.browser.test_purchase import to_payment

pytestmark = pytest.mark.browser


def test_a_second_payment_is_refunded(open_page: Open, url: str) -> None:
    payer = open_page("admin")
    to_payment(payer)
    payer.get_by_role("link", name=re.compile("^Pay ")).or_(
        payer.get_by_role("button", name=re.compile("^Pay "))
    ).click()
    payer.get_by_text("For tests").click()
    payer.get_by_role("button", name="Pay twice").click()
    expect(payer.locator("#returned-payment")).to_contain_text("Completed.")

    staff = open_page("staff", "/credits/flags", reduced_motion="reduce")
    give_back = staff.get_by_role("link", name="Refund this attempt").first
    for _ in range(20):  # until both webhooks have arrived
        if give_back.is_visible():
            break
        staff.wait_for_timeout(500)
        staff.reload()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width in (360, 768, 1280):
        staff.set_viewport_size({"width": width, "height": 900})
        assert staff.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"too wide at {width}"
        staff.screenshot(path=SCREENSHOTS / f"flagged-{width}.png", full_page=True)
    staff.get_by_text("Resolve").first.click()
    found = Axe().run(staff)
    assert found.violations_count == 0, found.generate_report()

    give_back.click()
    expect(staff.get_by_text("The payment itself does not change.")).to_be_visible()
    staff.screenshot(path=SCREENSHOTS / "give-back-1280.png", full_page=True)
    found = Axe().run(staff)
    assert found.violations_count == 0, found.generate_report()
    staff.get_by_role("button", name="Refund ₹1,770.00").click()
    staff.wait_for_url("**/credits/billing*")
    staff.goto(f"{url}/credits/flags")
    expect(staff.get_by_text("Resolved").first).to_be_visible()
    staff.screenshot(path=SCREENSHOTS / "settled-1280.png", full_page=True)
