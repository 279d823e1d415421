"""The auto top-up page: switching on with a purchase, changes, and the reason why it pauses today."""

from __future__ import annotations

from typing import Any

import pytest

from domain.payments.gateway import AttemptStatus, id_for_gateway
from domain.shared.command_context import CommandContext
from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser, Document
from tests.integration.api.pages.payments.test_payment_pages import DETAILS
from tests.payment_gateway import InMemoryGateway

PATH = "/credits/auto-top-up"
pytestmark = pytest.mark.usefixtures("details")


def switch_on(
    admin: Browser,
    gateway: InMemoryGateway,
    ledger_api: LedgerApi,
    threshold: str = "2,00,000",
    per_day: str = "1",
) -> Document:
    """Make and pay the purchase that switches it on, and return the next page."""
    page = admin.get(PATH)
    review = admin.submit(
        page.form(f"{PATH}/switch-on"), threshold=threshold, credits="1,000", per_day=per_day
    )
    assert "This purchase switches auto top-up on." in review.text
    assert "A top-up costs at most ₹1,770.00" in review.text
    payment = admin.submit(review.form("/credits/purchase/payment"), gateway="razorpay")
    payment_id = payment.form("/credits/billing/abandon").fields["payment"]
    services = ledger_api.services
    attempt = gateway.pay(gateway.order_ids[payment_id])
    services.payment_tracking.record_attempt(
        "razorpay", attempt, CommandContext(services.clock(), None, "test")
    )
    ledger_api.catch_up()
    return admin.get(PATH)


@pytest.fixture
def details(admin: Browser) -> None:
    """The billing details that a stored card needs."""
    admin.submit(admin.get("/credits/billing").form("/credits/billing"), **DETAILS)


def top_up(studio: str, ledger_api: LedgerApi) -> bool:
    """Do for the organisation what `creditledger worker` does, and return whether a top-up started."""
    services = ledger_api.services
    request = CommandContext(services.clock(), None, "test")
    begun = services.top_ups.begin(studio, id_for_gateway("top", services.new_id()), context=request)
    if begun is not None:
        services.payment_tracking.follow_up(begun.terms.payment_id, context=request)
    ledger_api.catch_up()
    return begun is not None


def test_it_is_switched_on_with_a_purchase(
    admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    assert "Auto top-up is off" in admin.get(PATH).text
    page = switch_on(admin, gateway, ledger_api)
    assert "Auto top-up is on" in page.text
    assert "1,000 credits when fewer than 2,00,000 are available" in page.text
    assert "at most ₹1,770.00 per top-up, to the card that paid on" in page.text
    assert "Today 0 of 1" in page.text


def test_a_top_up_that_was_too_small_is_explained(
    admin: Browser, studio: str, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    switch_on(admin, gateway, ledger_api)
    assert top_up(studio, ledger_api)
    page = admin.get(PATH)
    assert "Auto top-up is paused today." in page.text
    assert "too small to raise your credits above the threshold" in page.text
    assert "Today 1 of 1" in page.text
    assert "₹1,770.00 Completed See payment" in page.text
    assert "Credits by auto top-up 1,000 credits" in admin.get("/credits/billing").text


def test_a_refused_card_is_explained(
    admin: Browser, studio: str, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    switch_on(admin, gateway, ledger_api, per_day="3")
    gateway.card_answers = AttemptStatus.FAILED
    assert [top_up(studio, ledger_api), top_up(studio, ledger_api)] == [True, False]
    page = admin.get(PATH)
    assert "The card was declined. Auto top-up tries again tomorrow" in page.text
    assert "Failed See payment" in page.text


def test_it_is_changed_and_switched_off(
    admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    page = switch_on(admin, gateway, ledger_api)
    admin.submit(page.form(PATH), threshold="500", per_day="2")
    ledger_api.catch_up()
    page = admin.get(PATH)
    assert "1,000 credits when fewer than 500 are available" in page.text
    form = page.form(f"{PATH}/switch-off")
    admin.submit(form)
    ledger_api.catch_up()
    assert "Auto top-up is off" in admin.get(PATH).text
    assert "Auto top-up is off" in admin.submit(form).text


@pytest.mark.parametrize(
    ("fields", "field_errors"),
    [
        ({"threshold": "0"}, ["Threshold: enter a whole number from 1 to"]),
        ({"credits": "999"}, ["Credits: enter a whole number, at least 1,000"]),
        ({"credits": "1,000,000,000,000"}, ["Credits: this is more than one payment can be of"]),
        ({"per_day": "11"}, ["Per day: enter a whole number from 1 to 10"]),
        (
            {"threshold": "few", "credits": "many", "per_day": ""},
            [
                "Threshold: enter a whole number",
                "Credits: enter a whole number, at least 1,000",
                "Per day: this field is",
            ],
        ),
    ],
)
def test_errors_are_shown_next_to_the_form(
    admin: Browser, fields: dict[str, str], field_errors: list[str]
) -> None:
    wrong = {"threshold": "200", "credits": "1,000", "per_day": "1"} | fields
    page = admin.submit(admin.get(PATH).form(f"{PATH}/switch-on"), **wrong)
    assert page.response.status_code == 422
    for fault in field_errors:
        assert fault in page.text


def test_more_than_was_agreed_to_is_refused_with_a_reason(
    admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    page = switch_on(admin, gateway, ledger_api)
    refused = admin.submit(page.form(PATH), credits="5,000")
    assert "these cost more than the agreed maximum" in refused.text


def test_a_member_sees_no_form_and_changes_nothing(member: Browser) -> None:
    page = member.get(PATH)
    assert "An admin of your organisation can switch on auto top-up." in page.text
    assert "switch-on" not in page.response.text


def test_billing_details_are_required_first(admin: Browser, client: Any, studio: str) -> None:
    client.delete(f"/v1/organisations/{studio}/billing-details").raise_for_status()
    page = admin.get(PATH)
    assert "Add your billing details" in page.links
    assert "switch-on" not in page.response.text


def test_an_expired_quote_redirects_to_the_form(
    admin: Browser, ledger_api: LedgerApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = admin.submit(
        admin.get(PATH).form(f"{PATH}/switch-on"), threshold="200", credits="1,000", per_day="1"
    )
    assert review.links["Back"].startswith(PATH)


def test_it_is_not_offered_without_a_gateway_that_stores_cards(
    admin: Browser, gateway: InMemoryGateway, monkeypatch: pytest.MonkeyPatch, ledger_api: LedgerApi
) -> None:
    for each in ledger_api.services.payments.gateways.values():
        monkeypatch.setattr(each, "supports_recurring_charges", False, raising=False)
    assert "No payment gateway supports auto top-up in INR at the moment." in admin.get(PATH).text
