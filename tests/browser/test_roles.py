"""The buttons of each role, and the work of staff, in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ORGANISATION, Open
from tests.browser.test_monthly_routine import number

pytestmark = pytest.mark.browser

BUTTONS = ("Purchase Credits", "Add Credits", "View Billing")


@pytest.mark.parametrize(
    ("role", "visible"),
    [
        ("admin", {"Purchase Credits", "View Billing"}),
        ("member", {"View Billing"}),
        ("staff", {"Add Credits", "View Billing"}),
        ("auditor", {"View Billing"}),
    ],
)
def test_buttons_are_those_of_the_role(open_page: Open, role: str, visible: set[str]) -> None:
    page = open_page(role, f"/credits?organisation={ORGANISATION}")
    actions = page.locator(".hero-actions")
    seen = {name for name in BUTTONS if actions.get_by_role("link", name=name, exact=True).count()}
    assert seen == visible


def test_staff_find_an_organisation_and_add_credits(open_page: Open) -> None:
    page = open_page("staff", "/credits")
    page.get_by_label("First characters of the organisation's id").fill("campus")
    page.get_by_role("button", name="Find").click()
    page.get_by_role("link", name="campus-clicks").click()
    page.get_by_role("link", name="Add Credits").first.click()
    page.get_by_role("button", name="Add Credits").click()
    expect(page.get_by_role("alert")).to_contain_text("Please check the form.")
    page.get_by_label("Credits", exact=True).fill("25")
    page.get_by_label("Reason").fill("tried in a browser")
    page.get_by_role("button", name="Add Credits").click()
    expect(page.locator(".plus").first).to_have_text("+25")
    page.get_by_label("About this addition").first.click()
    expect(page.get_by_text("tried in a browser")).to_be_visible()


def test_staff_refund_a_charge(open_page: Open) -> None:
    page = open_page("staff", f"/credits?organisation={ORGANISATION}")
    page.get_by_label("About this run").nth(3).click()
    page.get_by_role("link", name="Charges of this run").click()  # of the single open panel
    page.get_by_role("link", name="Refund charge").first.click()
    page.get_by_label("Credits").fill("1")
    page.get_by_label("Reason").fill("blurred")
    page.get_by_role("button", name="Refund").click()
    assert number(page.locator(".plus").first.inner_text()) == 1
    expect(page.get_by_text("Refund").first).to_be_visible()


def test_a_visitor_is_asked_to_sign_in(open_page: Open, url: str) -> None:
    page = open_page("member")
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{url}/credits/subscription")
    expect(page.get_by_role("heading", name="Sign in to Credit Ledger")).to_be_visible()
    page.get_by_label("Token").fill("nonsense")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Not signed in.")


def test_an_unknown_address_shows_a_page(open_page: Open, url: str) -> None:
    page = open_page("member")
    answer = page.goto(f"{url}/credits?organisation=lens-and-lace")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", name="Organisation unknown")).to_be_visible()
