"""Pages on phones and tablets: complete, without horizontal scrolling."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.browser.test_purchase import to_payment

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}
TABLET = {"width": 820, "height": 1180}
# Titles and captions only for screen readers are clipped on purpose.
_CUT_OFF = """() => [...document.querySelectorAll('main :is(td, tbody th, td *), nav a')].filter(each => {
    const box = each.getBoundingClientRect();
    const room = (each.closest('.table-scroll') ?? document.body).getBoundingClientRect();
    return !each.closest('.unseen, thead, details') && box.width > 0
        && (box.right > room.right + 1 || box.left < room.left - 1);
}).map(each => each.outerHTML.slice(0, 120))"""


def cut_off(page: Page) -> list[str]:
    """Return the cells and links that are outside their box."""
    found: list[str] = page.evaluate(_CUT_OFF)
    return found


@pytest.mark.parametrize("screen", [PHONE, TABLET], ids=["phone", "tablet"])
def test_every_column_and_button_is_on_the_screen(open_page: Open, url: str, screen: dict[str, int]) -> None:
    page = open_page("admin", viewport=screen)
    to_payment(page)
    for path in ("/credits/billing", "/credits/balance"):
        page.goto(url + path)
        expect(page.get_by_role("cell").first).to_be_visible()
        assert cut_off(page) == [], path
    page.goto(f"{url}/credits")
    page.locator("a.month").nth(1).click()
    expect(page.get_by_role("rowheader").first).to_be_visible()
    assert cut_off(page) == []
    page.get_by_role("rowheader").get_by_role("link").first.click()
    expect(page.get_by_role("rowheader").first).to_be_visible()
    assert cut_off(page) == []


def test_cards_in_one_row_have_aligned_figures(open_page: Open) -> None:
    page = open_page("member", viewport=PHONE)
    tops = page.locator(".month .usage").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().top)"
    )
    assert tops[0] == tops[1]
    assert tops[2] == tops[3]


def test_without_scripts_there_is_no_button_that_needs_them(open_page: Open) -> None:
    page = open_page("member", java_script_enabled=False)
    expect(page.get_by_role("button", name="Live")).to_be_hidden()
    expect(page.get_by_role("link", name="Reload")).to_be_visible()


def test_a_long_name_without_spaces_keeps_the_page_narrow(open_page: Open) -> None:
    page = open_page("admin", viewport=PHONE)
    page.locator("td.event a").first.click()
    width = page.evaluate(
        "() => { document.querySelector('h1').textContent = 'x'.repeat(256);"
        " return document.documentElement.scrollWidth; }"
    )
    assert width == PHONE["width"]
