"""Pages of staff for flags, and for refunds of fees and custom payments."""

from __future__ import annotations

import re
from html import unescape

import pytest

from domain.payments.events import Flag
from domain.shared.command_context import CommandContext
from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser, Document
from tests.integration.api.pages.payments.test_payment_pages import begin, choose, pay
from tests.payment_gateway import InMemoryGateway


def link_to_refund(page: Document, payment_id: str) -> str:
    """Return the link to the refund page in a list."""
    links = re.findall(r'href="([^"]*/refund-payment[^"]*)"', page.response.text)
    (found,) = [unescape(link) for link in links if payment_id in link]
    return found


def whole_list(browser: Browser) -> str:
    """Return the text of all pages of the list."""
    page = browser.get("/credits/flags")
    text = page.text
    while "More" in page.links:
        page = browser.get(page.links["More"])
        text += page.text
    return text


def custom(staff: Browser, studio: str, ledger_api: LedgerApi, gateway: InMemoryGateway) -> str:
    """Request a custom payment of 5,000 rupees, have it paid, and return it."""
    form = staff.get("/credits/staff/custom-payment", organisation=studio).form(
        "/credits/staff/custom-payment"
    )
    staff.post(form.action, **{**form.fields, "amount": "5,000", "remark": "Banner", "gateway": "razorpay"})
    order_id = next(reversed(gateway.orders))
    attempt = gateway.pay(order_id)
    services = ledger_api.services
    result = services.payment_tracking.record_attempt(
        "razorpay", attempt, CommandContext(services.clock(), None, "test")
    )
    ledger_api.catch_up()
    return result.payment.terms.payment_id


def test_a_custom_payment_is_refunded_after_a_preview(
    staff: Browser, admin: Browser, studio: str, ledger_api: LedgerApi, gateway: InMemoryGateway
) -> None:
    payment_id = custom(staff, studio, ledger_api, gateway)
    page = staff.get(staff.get("/credits/billing", organisation=studio).links["Refund"])
    assert "Refundable amount, excluding tax ₹5,000.00" in page.text
    asking = page.form("/credits/staff/refund-payment")
    before = len(gateway.refunds)
    for amount in ("5,000.01", "0", "some", "12,50"):
        assert staff.submit(asking, amount=amount).status in (409, 422), amount
    assert "Amount: enter an amount above 0" in staff.submit(asking, amount="0").text
    too_much = staff.submit(asking, amount="5,000.01")
    assert "Amount: at most ₹5,000.00 can still be refunded, excluding tax" in too_much.text
    assert "#field-amount" in too_much.links.values()
    review = staff.submit(asking, amount="1,000.50")
    assert "₹1,180.59 is refunded through Razorpay, including ₹180.09 tax." in review.text
    assert len(gateway.refunds) == before
    form = review.form("/credits/staff/refund-payment")
    for _ in range(2):
        staff.post(form.action, **form.fields)
    assert len(gateway.refunds) == before + 1
    ledger_api.catch_up()
    assert "Partly refunded" in admin.get("/credits/billing", payment=payment_id).text


def test_the_preview_shows_the_end_of_the_plan(
    staff: Browser, admin: Browser, studio: str, ledger_api: LedgerApi, gateway: InMemoryGateway
) -> None:
    review = choose(admin, plan="pro", credits="0")
    pay(admin.submit(review.form("/credits/purchase/payment"), gateway="razorpay"), gateway, ledger_api)
    link = staff.get("/credits/billing", organisation=studio).links["Refund"]
    asking = staff.get(link).form("/credits/staff/refund-payment")
    assert "The plan does not change." in staff.submit(asking, amount="1").text
    review = staff.submit(asking)
    assert "The Pro Subscription ends now, instead of on" in review.text
    form = review.form("/credits/staff/refund-payment")
    staff.post(form.action, **form.fields)
    ledger_api.catch_up()
    assert "Pay As You Go" in admin.get("/credits/subscription").text


def test_a_second_payment_is_listed_and_refunded(
    staff: Browser, admin: Browser, studio: str, ledger_api: LedgerApi, gateway: InMemoryGateway
) -> None:
    page = begin(admin)
    payment_id = pay(page, gateway, ledger_api)
    assert pay(page, gateway, ledger_api) == payment_id
    listed = staff.get("/credits/flags")
    for event in (studio, "It was paid twice", "₹1,770.00", "Razorpay", "Credits", "Completed", "Open"):
        assert event in listed.text
    review = staff.get(link_to_refund(listed, payment_id))
    assert (
        "is refunded through Razorpay. The payment itself does not change. This cannot be undone."
        in review.text
    )
    form = review.form("/credits/staff/refund-payment")
    staff.post(form.action, **form.fields)
    ledger_api.catch_up()
    assert "Refunded: ref-" in whole_list(staff)
    billing = staff.get("/credits/billing", organisation=studio)
    assert "it was paid twice" not in billing.text
    assert "Completed" in billing.text


def test_auditors_can_only_read(
    auditor: Browser, admin: Browser, studio: str, ledger_api: LedgerApi, gateway: InMemoryGateway
) -> None:
    pay(begin(admin), gateway, ledger_api, amount_minor=100)
    listed = auditor.get("/credits/flags")
    assert studio in listed.text
    assert "Refund extra payment" not in listed.links
    assert not [form for form in listed.forms if "settle" in form.action]


def test_a_payment_links_to_its_flag(
    staff: Browser, admin: Browser, studio: str, ledger_api: LedgerApi, gateway: InMemoryGateway
) -> None:
    pay(begin(admin), gateway, ledger_api, amount_minor=100)
    page = staff.get(staff.get("/credits/billing", organisation=studio).links["Refund extra payment"])
    assert "The paid amount differs from the requested amount" in page.text
    assert "Requested ₹1,770.00" in page.text
    review = staff.submit(page.form("/credits/staff/refund-payment"))
    assert "The whole amount of pay_" in review.text


@pytest.mark.parametrize("note", ["Kept for the next order", "", "  "])
def test_a_flag_is_settled_with_a_note(
    staff: Browser, admin: Browser, ledger_api: LedgerApi, gateway: InMemoryGateway, note: str
) -> None:
    payment_id = pay(begin(admin), gateway, ledger_api, amount_minor=100)
    forms = staff.get("/credits/flags").forms
    (form,) = [form for form in forms if form.fields.get("payment") == payment_id]
    sent = staff.post(form.action, **{**form.fields, "note": note})
    payment = ledger_api.services.payments.payment(payment_id)
    assert {key.flag for key in payment.open_flags} == (set() if note.strip() else {Flag.AMOUNT_DIFFERS})
    assert sent.status_code == (303 if note.strip() else 422)
    ledger_api.catch_up()
    if note.strip():
        assert note in whole_list(staff)
        assert staff.post(form.action, **{**form.fields, "once": "other", "note": note}).status_code == 409
