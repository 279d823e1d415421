"""Buying credits in a browser, by a gateway's own page, to the invoice."""

from __future__ import annotations

import re

import pypdf
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import ORGANISATION, Open
from tests.browser.test_monthly_routine import number

pytestmark = pytest.mark.browser


def to_payment(page: Page, credits: str = "1000", gateway: str = "Razorpay") -> None:
    """Go through the wizard to its last step."""
    page.get_by_role("link", name="Purchase Credits").click()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("textbox", name="Credits").fill(credits)
    page.get_by_role("button", name="Review").click()
    page.get_by_role("radio", name=gateway).check()
    page.get_by_role("button", name="Continue to payment").click()


def at_gateway(page: Page, does: str) -> None:
    """Go to the gateway's page, and let the payer do something there."""
    pays = re.compile("^Pay ")
    page.get_by_role("button", name=pays).or_(page.get_by_role("link", name=pays)).click()
    page.wait_for_url(re.compile("checkout|gl/|redirect"))
    page.get_by_role("button", name=re.compile(f"^{does}\\b")).first.click()


def test_from_a_thousand_credits_to_the_invoice(open_page: Open) -> None:
    page = open_page("admin")
    page.get_by_role("button", name="Live").click()
    before = number(page.locator(".big").inner_text())
    to_payment(page)
    at_gateway(page, "Pay")
    expect(page.locator("#came-back")).to_contain_text("Completed. 1,000 credits were added.")
    expect(page.get_by_text("Waiting for billing").first).to_be_visible()

    page.get_by_role("link", name="Add Billing").first.click()
    page.get_by_label("Company or personal name").fill("Stride Photos Pvt Ltd")
    page.get_by_label("Email").fill("accounts@stride.example")
    address = page.get_by_role("group", name="Billing address")
    address.get_by_label("Street and house").fill("12 MG Road")
    address.get_by_label("City").fill("Bengaluru")
    address.get_by_label("Postal code").fill("560001")
    address.get_by_label("State").fill("Karnataka")
    page.get_by_role("button", name="Save billing details").click()
    expect(page.get_by_text("12 MG Road, Bengaluru 560001, Karnataka, IN")).to_be_visible()

    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download Invoice").first.click()
    text = pypdf.PdfReader(downloading.value.path()).pages[0].extract_text()
    assert "Stride Photos Pvt Ltd" in text
    assert "1,770.00" in text

    page.get_by_role("link", name="Credits", exact=True).first.click()
    assert number(page.locator(".big").inner_text()) > before, "1,000 came, less was used meanwhile"


IN_RUPEES = ("stride-photos", "Razorpay")
IN_DOLLARS = ("lens-and-lace", "PayGlocal")


@pytest.mark.parametrize(
    ("does", "status", "said"),
    [
        ("Pay", "Completed", "1,000 credits were added."),
        ("Fail", "Failed", "Nothing was bought."),
        ("Cancel", "Abandoned", "Nothing was charged."),
        ("Leave pending", "Pending", "The gateway has not confirmed yet."),
    ],
)
@pytest.mark.parametrize("buyer", [IN_RUPEES, IN_DOLLARS])
def test_what_becomes_of_a_payment_is_said(
    open_page: Open, buyer: tuple[str, str], does: str, status: str, said: str
) -> None:
    organisation, gateway = buyer
    page = open_page("admin", organisation=organisation)
    to_payment(page, gateway=gateway)
    at_gateway(page, does)
    back = page.get_by_role("link", name="Back to the shop")
    came_back = page.locator("#came-back")
    expect(back.or_(came_back)).to_be_visible()
    if back.is_visible():
        back.click()
    expect(came_back).to_contain_text(status)
    expect(came_back).to_contain_text(said)


def test_the_browsers_back_button_leads_through_the_wizard(open_page: Open) -> None:
    page = open_page("admin")
    to_payment(page)
    page.go_back()
    expect(page.get_by_role("heading", name="Review")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("textbox", name="Credits")).to_be_visible()
    page.go_forward()
    expect(page.get_by_role("heading", name="Review")).to_be_visible()


def test_two_tabs_buy_two_things_and_one_form_buys_one(open_page: Open) -> None:
    page = open_page("admin")
    to_payment(page)
    other = page.context.new_page()
    other.goto(page.url)
    assert other.url == page.url, "the same payment"
    at_gateway(page, "Pay")
    expect(page.locator("#came-back")).to_contain_text("Completed")
    other.reload()
    expect(other.locator("#came-back")).to_contain_text("Completed")


def test_a_member_has_no_purchase_button_and_is_refused(open_page: Open, url: str) -> None:
    page = open_page("member")
    expect(page.get_by_role("link", name="Purchase Credits")).to_have_count(0)
    answer = page.goto(f"{url}/credits/purchase")
    assert answer is not None
    assert answer.status == 403
    page.goto(f"{url}/credits/billing?organisation={ORGANISATION}")
    posted = page.evaluate(
        """async () => {
            const csrf = document.querySelector('[name=csrf]').value;
            const form = new URLSearchParams({csrf, plan: 'pro'});
            return (await fetch('/credits/purchase', {method: 'POST', body: form})).status;
        }"""
    )
    assert posted == 403
