"""Every page at three widths, light and dark: axe finds nothing, and the page fits the screen. Takes
pictures.
"""

from __future__ import annotations

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import ORGANISATION, SCREENSHOTS, Open

pytestmark = pytest.mark.browser

WIDTHS = (390, 820, 1440)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
OF = f"organisation={ORGANISATION}"
PAGES = {
    "credits": ("admin", "/credits"),
    "purchases": ("member", "/credits?tab=purchases"),
    "balance": ("member", "/credits/balance"),
    "billing": ("admin", "/credits/billing?edit=yes"),
    "purchase-plan": ("admin", "/credits/purchase"),
    "purchase-credits": ("admin", "/credits/purchase?plan=pro"),
    "purchase-custom": ("admin", "/credits/purchase?plan=custom"),
    "custom-payment": ("staff", f"/credits/staff/custom-payment?{OF}"),
    "refund-payment": ("staff", f"/credits/staff/refund-payment?{OF}&payment=pay-1"),
    "auto-top-up": ("admin", "/credits/auto-top-up"),
    "subscription": ("admin", "/credits/subscription"),
    "event": ("member", "event"),
    "run": ("member", "run"),
    "month": ("member", "month"),
    "organisations": ("staff", "/credits/organisations"),
    "grant": ("staff", f"/credits/staff/grant?{OF}"),
    "terms": ("staff", f"/credits/staff/terms?{OF}"),
    "refund": ("staff", f"/credits/staff/refund?{OF}&run=run-1&charge=4"),
    "flags": ("staff", "/credits/flags"),
    "dead-letters": ("staff", "/credits/dead-letters"),
    "reconciliation": ("staff", "/credits/reconciliation?gateway=razorpay"),
    "unknown": ("member", "/credits/events/1"),
    "sign-in": ("member", "/sign-in"),
}
OPENED_BY = {"event": "td.event a", "run": "a[href*='/credits/runs']", "month": "a.month"}


@pytest.mark.parametrize("name", PAGES)
def test_page(open_page: Open, url: str, name: str) -> None:
    role, path = PAGES[name]
    page = open_page(role, reduced_motion="reduce")
    if path in OPENED_BY:
        path = page.locator(OPENED_BY[path]).first.get_attribute("href") or ""
    page.goto(url + path)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"too wide at {width}"
            page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_colours_are_switched_and_remembered(open_page: Open) -> None:
    page = open_page("auditor", f"/credits?{OF}", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(background)
    assert dark != light
    again = open_page("auditor", f"/credits?{OF}", color_scheme="light")
    assert again.evaluate(background) == dark
    again.get_by_role("button", name="Auto").click()
    expect(again.locator("html")).to_have_attribute("data-scheme", "system")
    assert again.evaluate(background) == light


def test_a_phone_shows_the_same_as_a_desktop(open_page: Open) -> None:
    page = open_page("member", viewport={"width": 390, "height": 800}, has_touch=True)
    row = page.locator(".stack tbody tr").first
    for cell in ("td.type", "td.num", "td.event", "td.date", "td.who"):
        expect(row.locator(cell).first).to_be_visible()
    assert page.get_by_role("table", name="Credit Usage").get_by_role("row").count() == 26
