"""Billing, the purchase wizard, and payment pages of staff, over HTTP with an in-memory gateway."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.payments.gateway import AttemptStatus
from domain.shared.command_context import CommandContext
from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser, Document
from tests.payment_gateway import InMemoryGateway

DETAILS = {
    "name": "Stride Photos Pvt Ltd",
    "email": "accounts@stride.example",
    "address.country": "IN",
    "address.lines": "12 MG Road",
    "address.city": "Bengaluru",
    "address.gst_state": "Karnataka",
    "address.postal_code": "560001",
    "shipping_same": "yes",
}


def choose(browser: Browser, plan: str = "pay_as_you_go", credits: str = "1,000") -> Document:
    """Go through the wizard's first two steps, and return the third, or the second with its errors."""
    plans = browser.get("/credits/purchase")
    amount = browser.submit(plans.form("/credits/purchase"), plan=plan)
    return browser.submit(amount.form("/credits/purchase"), credits=credits)


def begin(browser: Browser) -> Document:
    """Go through the wizard, and return its last step."""
    return browser.submit(choose(browser).form("/credits/purchase/payment"), gateway="razorpay")


def pay(page: Document, gateway: InMemoryGateway, ledger_api: LedgerApi, **how: Any) -> str:
    """Let the gateway accept or refuse the payment and send its webhook; return the payment's id."""
    payment_id = page.form("/credits/billing/abandon").fields["payment"]
    attempt = gateway.pay(gateway.order_ids[payment_id], **how)
    ledger_api.services.payment_tracking.record_attempt(
        "razorpay", attempt, CommandContext(ledger_api.services.clock(), None, "test")
    )
    ledger_api.catch_up()
    return payment_id


def test_a_purchase_in_four_steps(admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi) -> None:
    review = choose(admin)
    assert "1,000 credits at ₹1.50 ₹1,500.00 GST 18 % ₹270.00 To pay ₹1,770.00" in review.text
    payment = admin.submit(review.form("/credits/purchase/payment"), gateway="razorpay")
    assert "Pay ₹1,770.00 with Razorpay" in payment.text
    payment_id = payment.form("/credits/billing/abandon").fields["payment"]
    way = payment.links["Pay ₹1,770.00 with Razorpay"]
    assert way == f"https://pay.example/page?order=order_{payment_id}", "a form would lose the query"
    policy = payment.response.headers["content-security-policy"]
    assert "form-action 'self' https://pay.example;" in policy

    pay(payment, gateway, ledger_api)
    back = admin.get("/credits/billing", payment=payment_id)
    assert "Credits, ₹1,770.00: Completed. 1,000 credits were added." in back.text
    assert "Available Credits 1,21,000" in admin.get("/credits").text
    assert "Waiting for billing" in back.text
    assert "Add billing details" in back.links


def test_a_form_that_is_sent_twice_makes_one_payment(admin: Browser, gateway: InMemoryGateway) -> None:
    form = choose(admin).form("/credits/purchase/payment")
    before = len(gateway.orders)
    pages = [admin.submit(form, gateway="razorpay") for _ in range(2)]
    first, second = (page.form("/credits/billing/abandon").fields["payment"] for page in pages)
    assert first == second
    assert len(gateway.orders) == before + 1


@pytest.mark.parametrize(
    ("credits", "fault"),
    [
        ("999", "a whole number, at least 1,000"),
        ("", "required"),
        ("many", "a whole number, at least 1,000"),
        ("1,000,000,000,000", "at most INR 10,000,000,000, tax included"),
    ],
)
def test_an_invalid_number_of_credits_is_explained(admin: Browser, credits: str, fault: str) -> None:
    page = choose(admin, credits=credits)
    assert page.status == 422
    assert fault in page.text
    assert "Review" in page.text


def test_a_review_can_be_reloaded(
    admin: Browser, open_browser: Any, organisation: str, ledger_api: LedgerApi
) -> None:
    form = admin.get("/credits/purchase", plan="pay_as_you_go").form("/credits/purchase")
    sent = admin.post(form.action, **{**form.fields, "credits": "1000"})
    assert sent.status_code == 303
    review = sent.headers["location"]
    for _ in range(2):
        assert "To pay ₹1,770.00" in admin.get(review).text
    ledger_api.catch_up()
    name = organisation.rpartition("/")[2]
    assert open_browser().sign_in("u-8", organisations={name: "admin"}).get(review).status == 422


def test_an_expired_review_redirects_to_the_choice(
    admin: Browser, open_browser: Any, studio: str, ledger_api: LedgerApi
) -> None:
    form = admin.get("/credits/purchase", plan="pay_as_you_go").form("/credits/purchase")
    review = admin.post(form.action, **{**form.fields, "credits": "1234"}).headers["location"]
    then = ledger_api.services.clock() + timedelta(minutes=31)
    later = open_browser(clock=lambda: then).sign_in("u-admin", organisations={studio: "admin"})
    assert later.get(review).form("/credits/purchase").fields["credits"] == "1234"


def test_pro_without_credits(admin: Browser) -> None:
    review = choose(admin, plan="pro", credits="")
    assert "Pro Subscription, 365 days ₹10,000.00 GST 18 % ₹1,800.00 To pay ₹11,800.00" in review.text


def choose_custom(browser: Browser, **fields: str) -> Document:
    """Go through the wizard's first two steps for an amount, and return the third, or the second again."""
    amount = browser.submit(browser.get("/credits/purchase").form("/credits/purchase"), plan="custom")
    return browser.submit(amount.form("/credits/purchase"), **fields)


def test_a_custom_payment_in_four_steps(
    admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    review = choose_custom(admin, amount="1,25,000.50", remark=" Banner at the finish ")
    said = "Custom Payment ₹1,25,000.50 GST 18 % ₹22,500.09 To pay ₹1,47,500.59 Remark Banner at the finish"
    assert said in review.text
    assert "Plan Amount Review Payment" in review.text
    payment = admin.submit(review.form("/credits/purchase/payment"), gateway="razorpay")
    assert "Custom Payment Banner at the finish To pay ₹1,47,500.59" in payment.text
    payment_id = pay(payment, gateway, ledger_api)
    back = admin.get("/credits/billing", payment=payment_id).text
    assert "Custom Payment, ₹1,47,500.59: Completed." in back
    assert "credits were added" not in back
    assert "Available Credits 1,20,000" in admin.get("/credits").text
    assert "Custom Payment Banner at the finish ₹1,47,500.59 GST ₹22,500.09" in back


def test_input_is_kept_and_the_remark_is_in_no_url(admin: Browser) -> None:
    form = admin.get("/credits/purchase", plan="custom").form("/credits/purchase")
    sent = admin.post(form.action, **{**form.fields, "amount": "1,250.5", "remark": "for Asha"})
    review = admin.get(sent.headers["location"])
    for address in (sent.headers["location"], *review.links.values()):
        assert "Asha" not in address
    again = admin.get(review.links["Back"]).form("/credits/purchase").fields
    assert (again["plan"], again["amount"], again["remark"]) == ("custom", "1250.50", "for Asha")
    corrected = admin.submit(admin.get(review.links["Back"]).form("/credits/purchase"), amount="1")
    assert "To pay ₹1.18" in corrected.text


@pytest.mark.parametrize(
    ("amount", "remark", "field_errors"),
    [
        ("", "", ["Amount: this field is required", "Remark: this field is required"]),
        ("1.005", "x", ["Amount: enter an amount such as 1,250.50, with at most two decimals"]),
        ("12,50", "x" * 65, ["Amount: enter an amount such as", "Remark: use at most 64 characters"]),
        ("0.00", "x", ["Amount: at least INR 1.00 with tax"]),
        ("0.84", "x", ["Amount: at least INR 1.00 with tax"]),
        ("8,474,576,271.20", "x", ["Amount: this is more than one payment can be of"]),
    ],
)
def test_an_invalid_amount_or_remark_is_explained(
    admin: Browser, amount: str, remark: str, field_errors: list[str]
) -> None:
    page = choose_custom(admin, amount=amount, remark=remark)
    assert page.status == 422
    assert [link for link in page.links.values() if link.startswith("#field-")] == [
        "#field-amount" if fault.startswith("Amount") else "#field-remark" for fault in field_errors
    ]
    for fault in field_errors:
        assert fault in page.text
    assert page.form("/credits/purchase").fields["amount"] == amount, "the input is kept"


def test_pro_is_not_sold_twice(admin: Browser, client: Any, studio: str, ledger_api: LedgerApi) -> None:
    client.put(f"/v1/organisations/{studio}/plan", json={"plan": "pro"}).raise_for_status()
    ledger_api.catch_up()
    assert "You are already on Pro." in admin.get("/credits/purchase").text
    refused = admin.get("/credits/purchase", plan="pro")
    assert refused.status == 400
    assert "Please check the form." in refused.text
    sent = {"plan": "pro", "credits": "", "csrf": admin.csrf_token}
    assert admin.post("/credits/purchase", **sent).status_code == 400


def test_custom_billing_is_explained_before_any_choice(admin: Browser, client: Any, studio: str) -> None:
    client.put(f"/v1/organisations/{studio}/plan", json={"plan": "enterprise"}).raise_for_status()
    for query in ({}, {"plan": "pro"}, {"plan": "custom"}, {"credits": "2000"}):
        refused = admin.get("/credits/purchase", **query)
        assert refused.status == 409
        assert "billed by agreement" in refused.text
        assert "Continue" not in refused.text
    sent = {"plan": "custom", "amount": "1", "remark": "x", "csrf": admin.csrf_token}
    assert admin.post("/credits/purchase", **sent).status_code == 409


@pytest.mark.parametrize("who", ["member", "auditor"])
@pytest.mark.parametrize(
    "path", ["/credits/purchase", "/credits/purchase/payment", "/credits/billing", "/credits/billing/abandon"]
)
def test_only_admins_buy(
    request: pytest.FixtureRequest, studio: str, who: str, path: str, gateway: InMemoryGateway
) -> None:
    browser: Browser = request.getfixturevalue(who)
    before = dict(gateway.orders)
    response = browser.post(f"{path}?organisation={studio}", csrf=browser.csrf_token, plan="pro", payment="x")
    assert response.status_code == 403
    assert gateway.orders == before
    assert "Purchase Credits" not in browser.get("/credits", organisation=studio).links


def test_a_pending_payment_is_rechecked_or_abandoned(
    admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    payment_id = begin(admin).form("/credits/billing/abandon").fields["payment"]
    ledger_api.catch_up()
    billing = admin.get("/credits/billing")
    assert "Pending" in billing.text
    gateway.pay(gateway.order_ids[payment_id])
    sent = admin.post("/credits/billing/recheck", csrf=admin.csrf_token, payment=payment_id)
    assert sent.status_code == 303
    ledger_api.catch_up()
    assert "Completed" in admin.get(sent.headers["location"]).text

    other = begin(admin).form("/credits/billing/abandon")
    given_up = admin.post(other.action, **other.fields)
    ledger_api.catch_up()
    back = admin.get(given_up.headers["location"]).text
    assert "Abandoned" in back
    assert "cancelled by the payer" in back
    assert "Nothing was charged." in back


def test_a_payer_who_cancels_at_the_gateway_returns(
    admin: Browser, member: Browser, ledger_api: LedgerApi, open_browser: Any
) -> None:
    payment_id = begin(admin).form("/credits/billing/abandon").fields["payment"]
    path = f"/credits/payments/{payment_id}/cancelled"
    ledger_api.catch_up()
    assert "Pending" in member.get(path).text, "a member cannot abandon a payment"
    assert open_browser().sign_in("u-8", organisations={"another": "admin"}).get(path).status == 404
    led = admin.raw(path)
    ledger_api.catch_up()
    assert "Abandoned. Nothing was charged." in admin.get(led.headers["location"]).text
    assert admin.get("/credits/payments/nobody-has-this/cancelled").status == 404


def test_a_refused_payment_shows_the_reason(
    admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    payment_id = pay(begin(admin), gateway, ledger_api, status=AttemptStatus.FAILED, reason="CARD_DECLINED")
    assert "card declined" in admin.get("/credits/billing", payment=payment_id).text


def test_flagged_money_is_shown_with_its_refund(
    admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    other = pay(begin(admin), gateway, ledger_api, amount_minor=177_100)
    text = admin.get("/credits/billing", payment=other).text
    said = (
        "he paid amount differs from the requested amount: ₹1,771.00."
        " This money bought nothing and is refunded"
    )
    assert text.count(said) == 2, "in the notice, and in the row"

    page = begin(admin)
    twice = pay(page, gateway, ledger_api)
    assert pay(page, gateway, ledger_api) == twice
    text = admin.get("/credits/billing", payment=twice).text
    assert "it was paid twice: ₹1,770.00. The second payment is refunded to the payer." in text


def test_another_organisations_payment_is_unknown(
    admin: Browser, open_browser: Any, organisation: str, ledger_api: LedgerApi
) -> None:
    ledger_api.catch_up()
    payment_id = begin(admin).form("/credits/billing/abandon").fields["payment"]
    name = organisation.rpartition("/")[2]
    stranger = open_browser().sign_in("u-8", organisations={name: "admin"})
    assert stranger.get("/credits/purchase/payment", payment=payment_id).status == 404
    for action in ("recheck", "abandon", "invoice"):
        sent = stranger.post(f"/credits/billing/{action}", csrf=stranger.csrf_token, payment=payment_id)
        assert sent.status_code in (404, 409), action


def test_invoices_come_with_billing_details(
    admin: Browser, member: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    pay(begin(admin), gateway, ledger_api)
    form = admin.get("/credits/billing").form("/credits/billing")
    wrong = admin.submit(form, **{**DETAILS, "tax_id": "29AAGCB7383J1Z9"})
    assert wrong.status == 422
    assert wrong.form("/credits/billing").fields["address.city"] == "Bengaluru", "the input is kept"
    assert "tax id" in wrong.text.lower()
    sent = admin.post("/credits/billing", **{**form.fields, **DETAILS})
    assert sent.status_code == 303
    billing = member.get("/credits/billing")
    assert "12 MG Road, Bengaluru 560001, Karnataka, IN" in billing.text
    pdf = member.raw(billing.links["Download Invoice"])
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF")
    assert "attachment" in pdf.headers["content-disposition"]


def pay_with_billing_details(admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi) -> None:
    """Save billing details and complete a payment, whose invoice is then due."""
    form = admin.get("/credits/billing").form("/credits/billing")
    assert admin.post("/credits/billing", **{**form.fields, **DETAILS}).status_code == 303
    pay(begin(admin), gateway, ledger_api)


def test_a_member_issues_a_missing_invoice(
    admin: Browser, member: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    pay_with_billing_details(admin, gateway, ledger_api)
    form = member.get("/credits/billing").form("/credits/billing/invoice")
    issued = member.post("/credits/billing/invoice", **form.fields)
    assert issued.status_code == 303
    assert member.raw(issued.headers["location"]).headers["content-type"] == "application/pdf"


def test_an_auditor_waits_for_the_invoice(
    admin: Browser, auditor: Browser, studio: str, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    pay_with_billing_details(admin, gateway, ledger_api)
    billing = auditor.get("/credits/billing", organisation=studio)
    assert "Invoice is being issued" in billing.text
    assert not [form for form in billing.forms if "invoice" in form.action]


def test_all_errors_of_billing_details_are_shown_next_to_their_fields(admin: Browser) -> None:
    form = admin.get("/credits/billing").form("/credits/billing")
    del form.fields["shipping_same"]
    wrong = admin.submit(form, **{"email": "nobody", "phone": "call me", "address.line_2": "x" * 81})
    assert wrong.status == 422
    assert "<title>Error: Billing" in wrong.response.text
    at_fault = ["name", "email", "phone", "address.lines", "address.line_2", "address.city"]
    at_fault += ["address.postal_code", "address.gst_state"]
    at_fault += [f"shipping.{part}" for part in ("lines", "city", "postal_code", "gst_state")]
    links = {link: text for text, link in wrong.links.items() if link.startswith("#field-")}
    assert list(links) == [f"#field-{name}" for name in at_fault]
    assert links["#field-shipping.postal_code"] == (
        "Shipping address: a PIN code is needed in India: six digits, such as 560001"
    )
    for name in at_fault:
        field = wrong.parts[f"field-{name}"]
        assert field["aria-invalid"] == "true", name
        assert f"fault-{name}" in field["aria-describedby"].split(), name
        assert f"fault-{name}" in wrong.parts, name
    assert "aria-invalid" not in wrong.parts["field-tax_id"]
    assert "A city is needed" in wrong.text


def test_a_form_has_the_labels_of_the_chosen_country(admin: Browser) -> None:
    page = admin.get("/credits/billing")
    assert "required" in page.parts["field-address.postal_code"]
    assert page.form("/credits/billing").fields["address.country"] == "IN"
    abroad = admin.submit(page.form("/credits/billing"), **{**DETAILS, "name": "", "address.country": "DE"})
    assert abroad.status == 422
    assert [link for link in abroad.links.values() if link.startswith("#field-")] == ["#field-name"]
    assert "required" not in abroad.parts["field-address.postal_code"]


def test_states_of_india_are_a_list_and_others_are_free_text(admin: Browser) -> None:
    form = admin.get("/credits/billing").form("/credits/billing")
    in_india = {**DETAILS, "address.state": "California"}
    assert admin.post("/credits/billing", **{**form.fields, **in_india}).status_code == 303
    assert "Bengaluru 560001, Karnataka, IN" in admin.get("/credits/billing").text
    form = admin.get("/credits/billing", edit="yes").form("/credits/billing")
    assert form.fields["address.gst_state"] == "Karnataka"
    in_the_us = {"address.country": "US", "address.state": "California", "address.postal_code": "90001"}
    assert admin.post("/credits/billing", **{**form.fields, **in_the_us}).status_code == 303
    assert "Bengaluru 90001, California, US" in admin.get("/credits/billing").text
    form = admin.get("/credits/billing", edit="yes").form("/credits/billing")
    assert (form.fields["address.state"], form.fields["address.gst_state"]) == ("California", "")


def test_an_error_with_another_shipping_address_keeps_the_form(admin: Browser) -> None:
    form = admin.get("/credits/billing").form("/credits/billing")
    del form.fields["shipping_same"]
    typed = {
        **DETAILS,
        "address.gst_state": "Atlantis",
        "shipping.city": "Mysuru",
        "shipping.lines": "1 Road",
    }
    del typed["shipping_same"]
    wrong = admin.submit(form, **typed)
    assert wrong.status == 422
    kept = wrong.form("/credits/billing").fields
    assert "shipping_same" not in kept
    assert kept["shipping.city"] == "Mysuru"


def test_staff_refund_a_payment(
    admin: Browser, staff: Browser, studio: str, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    payment_id = pay(begin(admin), gateway, ledger_api)
    link = staff.get("/credits/billing", organisation=studio).links["Refund"]
    form = staff.get(link).form("/credits/staff/refund-payment")
    for credits in ("5000", "some"):
        assert staff.submit(form, credits=credits).status in (409, 422)
    review = staff.submit(form)
    for event in (
        studio,
        payment_id,
        "Paid ₹1,770.00",
        "Credits bought 1,000",
        "Unspent 1,000, worth ₹1,770.00",
    ):
        assert event in review.text
    assert "1,000 credits are taken back, and ₹1,770.00 is refunded through Razorpay." in review.text
    ledger_api.catch_up()
    assert "Refunded" not in admin.get("/credits/billing").text, "nothing is refunded before the confirmation"
    form = review.form("/credits/staff/refund-payment")
    staff.post(form.action, **form.fields)
    ledger_api.catch_up()
    assert "Refunded" in admin.get("/credits/billing", payment=payment_id).text
    history = admin.get("/credits", tab="purchases").text
    assert "Purchase Refund" in history
    assert "Refunded amount ₹1,770.00" in history
    assert '"type": "Purchase Refund", "credits": -1000' in admin.raw("/credits/export/purchases.jsonl").text
    assert "Available Credits 1,20,000" in admin.get("/credits").text


def test_a_payment_is_refunded_in_parts(
    admin: Browser, staff: Browser, studio: str, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    pay(begin(admin), gateway, ledger_api)
    for credits, status, is_more in (("400", "Partly refunded", True), ("600", "Refunded", False)):
        link = staff.get("/credits/billing", organisation=studio).links["Refund"]
        asking = staff.get(link).form("/credits/staff/refund-payment")
        form = staff.submit(asking, credits=credits).form("/credits/staff/refund-payment")
        staff.post(form.action, **form.fields)
        ledger_api.catch_up()
        billing = staff.get("/credits/billing", organisation=studio)
        assert f" refunded {status} " in billing.text
        assert ("Refund" in billing.links) is is_more


def test_staff_request_a_custom_payment(
    staff: Browser, admin: Browser, studio: str, ledger_api: LedgerApi
) -> None:
    form = staff.get("/credits/staff/custom-payment", organisation=studio).form(
        "/credits/staff/custom-payment"
    )
    for amount in ("1.005", "12,50", "1e3", "0", "0.03"):
        refused = staff.submit(form, amount=amount, remark="Banner", gateway="razorpay")
        assert refused.status == 422, amount
        assert "Amount" in refused.text
    staff.post(
        form.action, **{**form.fields, "amount": "5,000.00", "remark": "Banner", "gateway": "razorpay"}
    )
    ledger_api.catch_up()
    text = admin.get("/credits/billing").text
    assert "Custom Payment Banner ₹5,900.00 GST ₹900.00 Pending" in text
