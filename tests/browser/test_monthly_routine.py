"""The five minutes a month that the user guide asks for, in a browser."""

from __future__ import annotations

import csv
import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open

pytestmark = pytest.mark.browser


def number(text: str) -> int:
    """Return the whole number of a text, whatever its separators."""
    return int(re.sub(r"[^\d-]", "", text.replace("\N{MINUS SIGN}", "-")))


def test_balance_usage_and_top_up_advice(open_page: Open) -> None:
    page = open_page("admin")
    expect(page.get_by_role("heading", name="Available Credits")).to_be_visible()
    assert number(page.locator(".big").inner_text()) > 0

    cards = page.locator(".month")
    expect(cards).to_have_count(4)
    expect(cards.first.locator(".badge")).to_have_text("Current")
    assert all(number(text) > 0 for text in page.locator(".month .usage").all_inner_texts())

    usage = number(cards.nth(1).locator(".usage").inner_text())
    cards.nth(1).click()
    expect(page.get_by_role("heading", name="Events, most credits first")).to_be_visible()
    column = page.locator("td.minus").all_inner_texts()
    spent = [-number(text) for text in column]
    assert spent == sorted(spent, reverse=True)
    assert sum(spent) == usage, "a card's events add up to it"

    page.locator("tbody a").first.click()
    expect(page.get_by_role("heading", name="By day")).to_be_visible()
    page.get_by_role("table", name="Runs of the event").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Charges")).to_be_visible()
    expect(page.get_by_text("Purchase,").first).to_be_visible()


def test_the_next_event_is_planned(open_page: Open) -> None:
    page = open_page("admin")
    page.get_by_label("Photos of your next event").fill("900000")
    page.get_by_role("button", name="Suggest").click()
    expect(page.locator(".verdict.warn").first).to_contain_text("Top up")
    expect(page.get_by_text("Your credits may not be enough for the next event.")).to_be_visible()


def test_the_price_shows_and_hides(open_page: Open) -> None:
    page = open_page("admin")
    expect(page.get_by_text("₹1.50")).to_have_count(0)
    page.get_by_role("button", name="Show cost per credit").click()
    expect(page.locator("#price")).to_have_text("₹1.50")
    page.reload()
    expect(page.locator("#price")).to_have_text("₹1.50")
    page.get_by_role("button", name="Hide cost per credit").click()
    expect(page.get_by_text("₹1.50")).to_have_count(0)


def test_numbers_are_written_as_in_the_users_country(open_page: Open) -> None:
    indian = open_page("member", "/credits?tab=purchases")
    expect(indian.get_by_text("+75,000", exact=True)).to_be_visible()
    expect(indian.locator("html")).to_have_attribute("lang", "en-IN")
    american = open_page("member", "/credits/balance", organisation="lens-and-lace")
    expect(american.locator("html")).to_have_attribute("lang", "en-US")
    expect(american.locator("tbody th").first).to_contain_text(re.compile(r"[A-Z][a-z]{2} \d+, 20\d\d"))


def test_info_icons_open_by_mouse_and_close_by_escape(open_page: Open) -> None:
    page = open_page("member", "/credits?tab=purchases")
    purchase = page.get_by_role("row").filter(has_text="+75,000")
    icon = purchase.get_by_label("About this addition")
    icon.click()
    expect(purchase.get_by_text("Payment ID")).to_be_visible()
    page.keyboard.press("Escape")
    expect(purchase.get_by_text("Payment ID")).to_be_hidden()
    expect(icon).to_be_focused()


def test_usage_appears_without_a_reload(open_page: Open) -> None:
    page = open_page("member")
    freshness = page.locator("#freshness span[title]")
    first = freshness.get_attribute("title") or ""
    available = page.locator(".big").inner_text()
    expect(freshness).not_to_have_attribute("title", first, timeout=15_000)
    expect(page.locator(".big")).not_to_have_text(available, timeout=30_000)
    assert page.evaluate("performance.getEntriesByType('navigation')[0].type") == "navigate"

    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("link", name="Reload")).to_be_visible()
    stopped = freshness.get_attribute("title")
    page.wait_for_timeout(4_000)
    assert freshness.get_attribute("title") == stopped


def test_people_of_the_demo_have_names(open_page: Open) -> None:
    page = open_page("admin")
    expect(page.get_by_text("Asha Rao")).to_be_visible()
    users = page.locator("td.who").all_inner_texts()
    assert users
    assert not [user for user in users if user.startswith("u-")]


def test_an_export_is_complete(open_page: Open) -> None:
    page = open_page("member")
    with page.expect_download() as downloading:
        page.get_by_role("link", name="CSV").click()
    path = downloading.value.path()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs = sum(number(card.locator(".figure").first.inner_text()) for card in page.locator(".month").all())
    assert len(rows) >= runs * 0.95  # of four months; more may have arrived meanwhile
    assert len({row["reference"] for row in rows}) == len(rows)


def test_a_link_leads_to_older_rows(open_page: Open) -> None:
    page = open_page("member")
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newest")).to_be_visible()
    expect(page.locator(".stack tbody tr")).to_have_count(25)


def test_everything_works_without_scripts(open_page: Open) -> None:
    page = open_page("admin", java_script_enabled=False)
    expect(page.get_by_role("link", name="Reload")).to_be_visible()
    page.get_by_role("button", name="Show cost per credit").click()
    expect(page.locator("#price")).to_have_text("₹1.50")
    page.get_by_role("button", name="Hide cost per credit").click()
    page.get_by_label("About this run").first.click()
    expect(page.locator(".info-panel").first).to_be_visible()
    page.get_by_role("link", name="Purchase History").click()
    expect(page.locator(".plus").first).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in to Credit Ledger")).to_be_visible()


def test_the_keyboard_is_enough(open_page: Open) -> None:
    page = open_page("member")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    reach(page, "Show cost per credit")
    page.keyboard.press("Enter")
    expect(page.locator("#price")).to_be_visible()
    reach(page, "Hide cost per credit")
    page.keyboard.press("Space")
    expect(page.locator("#price")).to_have_count(0)
    reach(page, "About this run")
    page.keyboard.press("Enter")
    reach(page, "Charges of this run")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Charges")).to_be_visible()


def reach(page: Page, name: str) -> None:
    """Press Tab until the element with a name has the focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
        )
        if focused.strip() == name:
            return
    raise AssertionError(f"Tab never reaches {name}")
