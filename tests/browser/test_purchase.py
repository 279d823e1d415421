"""A purchase of credits in a browser, through the gateway's page, up to the invoice."""

from __future__ import annotations

import re

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import ORGANISATION, SCREENSHOTS, Open
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
    """Open the gateway's page, and press one of its buttons."""
    pays = re.compile("^Pay ")
    page.get_by_role("button", name=pays).or_(page.get_by_role("link", name=pays)).click()
    page.wait_for_url(re.compile("checkout|gl/|redirect"))
    page.get_by_role("button", name=re.compile(f"^{does}\\b")).first.click()


def picture(page: Page, name: str, *, with_axe: bool = True) -> None:
    """Take pictures of a step on a phone and on a desktop, and check it with axe, which needs scripts."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"too wide at {width}"
        page.screenshot(path=SCREENSHOTS / f"{name}-{width}.png", full_page=True)
    if not with_axe:
        return
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_from_a_thousand_credits_to_the_invoice(open_page: Open) -> None:
    page = open_page("admin")
    page.get_by_role("button", name="Live").click()
    before = number(page.locator(".big").inner_text())
    to_payment(page)
    at_gateway(page, "Pay")
    expect(page.locator("#returned-payment")).to_contain_text("Completed. 1,000 credits were added.")
    expect(page.get_by_text("Waiting for billing details").first).to_be_visible()

    page.get_by_role("link", name="Add billing details").first.click()
    page.get_by_label("Company or personal name").fill("Stride Photos Pvt Ltd")
    page.get_by_label("Email").fill("accounts@stride.example")
    address = page.get_by_role("group", name="Billing address")
    address.get_by_label("Street and house").fill("12 MG Road")
    address.get_by_label("City").fill("Bengaluru")
    address.get_by_label("State", exact=True).select_option("Karnataka (29)")
    page.get_by_role("button", name="Save billing details").click()
    page.get_by_role("link", name="Billing address: a PIN code").click()
    expect(address.get_by_label("PIN code")).to_be_focused()
    expect(address.get_by_label("PIN code")).to_have_accessible_description(
        "A PIN code is needed in India: six digits, such as 560001"
    )
    page.keyboard.type("560001")
    page.get_by_role("button", name="Save billing details").click()
    expect(page.get_by_text("12 MG Road, Bengaluru 560001, Karnataka, IN")).to_be_visible()

    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download Invoice").first.click()
    text = pypdf.PdfReader(downloading.value.path()).pages[0].extract_text()
    assert "Stride Photos Pvt Ltd" in text
    assert "1,770.00" in text

    page.get_by_role("link", name="Credits", exact=True).first.click()
    assert number(page.locator(".big").inner_text()) > before, (
        "1,000 were added, and fewer were used meanwhile"
    )


def test_a_custom_payment_from_the_wizard(open_page: Open) -> None:
    page = open_page("admin")
    page.get_by_role("link", name="Purchase Credits").click()
    page.get_by_role("radio", name="Custom Payment").check()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Review").click()
    picture(page, "purchase-custom-faults")
    page.get_by_role("link", name="Remark").click()
    expect(page.get_by_role("textbox", name="Remark")).to_be_focused()
    page.keyboard.type("Banner at the finish of the City Marathon")
    page.get_by_role("textbox", name="Amount in INR").fill("1,25,000")
    page.get_by_role("button", name="Review").click()
    expect(page.get_by_text("₹1,47,500.00")).to_be_visible()
    picture(page, "purchase-custom-review")
    page.get_by_role("link", name="Back").click()
    expect(page.get_by_role("textbox", name="Amount in INR")).to_have_value("125000.00")
    page.get_by_role("button", name="Review").click()
    page.get_by_role("radio", name="Razorpay").check()
    page.get_by_role("button", name="Continue to payment").click()
    picture(page, "purchase-custom-payment")
    at_gateway(page, "Pay")
    expect(page.locator("#returned-payment")).to_contain_text("Custom Payment, ₹1,47,500.00: Completed.")
    row = page.get_by_role("row").filter(has_text="Banner at the finish").first
    expect(row).to_contain_text("GST ₹22,500.00")


@pytest.mark.parametrize("with_scripts", [True, False])
def test_the_billing_form_follows_the_country(open_page: Open, with_scripts: bool) -> None:
    page = open_page("admin", "/credits/billing?edit=yes", java_script_enabled=with_scripts)
    billing = page.get_by_role("group", name="Billing address")
    shipping = page.get_by_role("group", name="Shipping address")
    expect(billing.get_by_label("State", exact=True)).to_be_visible()
    expect(page.get_by_label("GSTIN")).to_be_visible()
    expect(shipping).to_be_hidden()
    page.get_by_label("Shipping address is the same").uncheck()
    expect(shipping.get_by_label("PIN code")).to_be_visible()
    billing.get_by_label("Country").select_option("Germany")
    expect(billing.get_by_label("State", exact=True)).to_be_hidden()
    expect(billing.get_by_label("State or province optional")).to_be_visible()
    expect(billing.get_by_label("Postal code optional")).to_be_visible()
    expect(page.get_by_label("Tax identifier optional")).to_be_visible()
    expect(shipping.get_by_label("PIN code")).to_be_visible()
    picture(page, f"billing-abroad-{with_scripts}", with_axe=with_scripts)
    for name in ("Company or personal name", "Email"):
        page.get_by_label(name).fill("")
    for name in ("Street and house", "City"):
        billing.get_by_label(name).fill("")
    page.get_by_role("button", name="Save billing details").click()
    expect(page.get_by_role("alert").get_by_role("link")).to_have_count(8)
    picture(page, f"billing-faults-{with_scripts}", with_axe=with_scripts)


IN_RUPEES = ("stride-photos", "Razorpay")
IN_DOLLARS = ("lens-and-lace", "PayGlocal")


@pytest.mark.parametrize(
    ("does", "status", "said"),
    [
        ("Pay", "Completed", "1,000 credits were added."),
        ("Fail", "Failed", "Nothing was purchased."),
        ("Cancel", "Abandoned", "Nothing was charged."),
        ("Leave pending", "Pending", "The gateway has not confirmed the payment yet."),
    ],
)
@pytest.mark.parametrize("buyer", [IN_RUPEES, IN_DOLLARS])
def test_the_page_shows_the_outcome_of_a_payment(
    open_page: Open, buyer: tuple[str, str], does: str, status: str, said: str
) -> None:
    organisation, gateway = buyer
    page = open_page("admin", organisation=organisation)
    to_payment(page, gateway=gateway)
    at_gateway(page, does)
    back = page.get_by_role("link", name="Back to the shop")
    returned_payment = page.locator("#returned-payment")
    expect(back.or_(returned_payment)).to_be_visible()
    if back.is_visible():
        back.click()
    expect(returned_payment).to_contain_text(status)
    expect(returned_payment).to_contain_text(said)


def test_the_back_button_works_in_the_wizard(open_page: Open) -> None:
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
    expect(page.locator("#returned-payment")).to_contain_text("Completed")
    other.reload()
    expect(other.locator("#returned-payment")).to_contain_text("Completed")


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
