"""The pages of staff, which nobody else may use."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest

from api.http.page_services import DeadLetter
from domain.payments.gateway import GatewayUnavailable
from domain.payments.reconciliation import Difference, DifferenceKind
from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser
from tests.integration.api.pages.identity.test_sign_in import pages_of

STAFF_POSTS = [
    ("/credits/staff/grant", {"credits": "5", "kind": "admin", "reason": "x"}),
    ("/credits/staff/refund?run=run-1&charge=4", {"credits": "5", "reason": "x"}),
    ("/credits/staff/price", {"price": "9"}),
    ("/credits/staff/plan", {"plan": "pro"}),
]


def balance_of(client: Any, studio: str) -> Any:
    return client.get(f"/v1/organisations/{studio}/balance").json()


def test_credits_are_added_with_a_reason(
    staff: Browser, member: Browser, studio: str, ledger_api: LedgerApi, client: Any
) -> None:
    form = staff.get("/credits/staff/grant", organisation=studio).form("/credits/staff/grant")
    added = staff.post(form.action, **{**form.fields, "credits": "1,500", "reason": "goodwill"})
    assert added.status_code == 303
    ledger_api.catch_up()
    history = staff.get(added.headers["location"]).text
    assert "Admin Grant" in history
    assert "+1,500" in history
    assert "goodwill" in member.get("/credits", tab="purchases").text
    again = staff.post(form.action, **{**form.fields, "credits": "1,500", "reason": "goodwill"})
    assert again.status_code == 303
    ledger_api.catch_up()
    assert balance_of(client, studio)["available"] == 121_500, "the same form counts once"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"credits": "", "reason": "x"}, "this field is required"),
        ({"credits": "-5", "reason": "x"}, "a whole number from 1"),
        ({"credits": "5", "reason": ""}, "this field is required"),
        ({"credits": "5", "reason": "x" * 201}, "use at most 200 characters"),
        ({"credits": "5", "reason": "x", "kind": "bribe"}, "choose one of the options"),
    ],
)
def test_a_form_shows_errors_and_keeps_the_input(
    staff: Browser, studio: str, fields: dict[str, str], fault: str
) -> None:
    form = staff.get("/credits/staff/grant", organisation=studio).form("/credits/staff/grant")
    page = staff.submit(form, **fields)
    assert page.status == 422
    assert fault in page.text
    kept = page.form("/credits/staff/grant").fields
    assert kept["reason"] == fields["reason"]
    assert kept["once"] == form.fields["once"]


def test_a_charge_is_refunded_from_its_run(
    staff: Browser, studio: str, ledger_api: LedgerApi, client: Any
) -> None:
    run = staff.get("/credits/runs", organisation=studio, run="run-2")
    (refund,) = {link for link in run.links.values() if "/credits/staff/refund" in link}
    form = staff.get(refund).form("/credits/staff/refund")
    too_much = staff.submit(form, credits="5000", reason="blurred")
    assert too_much.status == 409
    staff.submit(too_much.form("/credits/staff/refund"), credits="", reason="blurred")
    ledger_api.catch_up()
    assert balance_of(client, studio)["available"] == 121_200
    assert "+1,200" in staff.get("/credits", organisation=studio, tab="purchases").text


def test_price_and_plan_are_changed(staff: Browser, studio: str, ledger_api: LedgerApi, client: Any) -> None:
    page = staff.get("/credits/staff/terms", organisation=studio)
    assert staff.submit(page.form("/credits/staff/price"), price="1.2345678").status == 422
    staff.post(**sent(page.form("/credits/staff/price"), price="1.25"))
    staff.post(**sent(page.form("/credits/staff/plan"), plan="pro", last_day="2027-03-31"))
    ledger_api.catch_up()
    terms = balance_of(client, studio)
    assert terms["price_millionths"] == 1_250_000
    assert terms["plan"] == "pro"
    assert "31 Mar 2027" in staff.get("/credits/subscription", organisation=studio).text


def test_a_plan_cannot_end_in_the_past(
    staff: Browser, studio: str, client: Any, ledger_api: LedgerApi
) -> None:
    form = staff.get("/credits/staff/terms", organisation=studio).form("/credits/staff/plan")
    page = staff.submit(form, plan="pro", last_day="2020-01-31")
    assert page.status == 422
    assert "Last day: the plan would have ended already" in page.text
    ledger_api.catch_up()
    assert balance_of(client, studio)["plan"] != "pro"


def test_a_decimal_comma_is_refused(staff: Browser, studio: str, client: Any, ledger_api: LedgerApi) -> None:
    before = balance_of(client, studio)
    terms = staff.get("/credits/staff/terms", organisation=studio).form("/credits/staff/price")
    grant = staff.get("/credits/staff/grant", organisation=studio).form("/credits/staff/grant")
    for form, field in ((terms, {"price": "0,03"}), (grant, {"credits": "1,5", "reason": "x"})):
        page = staff.submit(form, **field)
        assert page.status == 422
        (name, *_) = field
        assert f"{name.title()}: " in page.text
    ledger_api.catch_up()
    assert balance_of(client, studio) == before


def sent(form: Any, **fields: str) -> dict[str, str]:
    return {"path": form.action, **form.fields, **fields}


@pytest.mark.parametrize("who", ["admin", "member", "auditor"])
@pytest.mark.parametrize("posted", STAFF_POSTS, ids=lambda posted: posted[0])
def test_other_users_are_refused(
    request: pytest.FixtureRequest, client: Any, studio: str, who: str, posted: tuple[str, dict[str, str]]
) -> None:
    path, fields = posted
    browser: Browser = request.getfixturevalue(who)
    before = balance_of(client, studio)
    address = f"{path}{'&' if '?' in path else '?'}organisation={studio}"
    response = browser.post(address, csrf=browser.csrf_token, idempotency_key="1", **fields)
    assert response.status_code == 403
    assert re.search("your role does not allow this", response.text, re.IGNORECASE)
    assert balance_of(client, studio) == before


def test_refused_messages_are_shown_as_text(ledger_api: LedgerApi, open_browser: Any) -> None:
    letter = DeadLetter(
        "wrong type", "data.photos", "2026-11-22T09:15:00Z", "usage 3:7", "org-1", "<b>{}</b>"
    )
    browser = open_browser(pages=pages_of(ledger_api, dead_letters=lambda: [letter]))
    page = browser.sign_in("a-1", roles=["auditor"]).get("/credits/dead-letters")
    assert "22 Nov 2026, 09:15:00 UTC wrong type data.photos org-1 usage 3:7" in page.text
    assert "<b>{}</b>" in page.text


def test_dead_letters_are_for_staff_and_auditors(member: Browser, staff: Browser) -> None:
    assert member.get("/credits/dead-letters").status == 403
    assert "No message was refused." in staff.get("/credits/dead-letters").text


@pytest.fixture
def comparing(ledger_api: LedgerApi, open_browser: Any) -> Any:
    """A function that opens the pages as an auditor, with a fake reconciliation."""

    def open_pages(reconcile: Any) -> Browser:
        pages = pages_of(ledger_api, gateways=("razorpay",), reconcile=reconcile)
        browser: Browser = open_browser(pages=pages).sign_in("a-1", roles=["auditor"])
        return browser

    return open_pages


def test_differences_of_a_gateway_are_shown_with_their_money(comparing: Any) -> None:
    asked = []

    def reconcile(gateway: str, first: date, last: date) -> list[Difference]:
        asked.append((gateway, first, last))
        return [
            Difference(
                DifferenceKind.AMOUNT_DIFFERS,
                organisation_id="<org>",
                payment_id="p-1",
                gateway_payment_id="pay_1",
                currency="INR",
                ledger=177_000,
                gateway=10_000_000,
            ),
            Difference(
                DifferenceKind.CREDITS_MISSING, payment_id="p-2", credits_bought=1_000, credits_added=0
            ),
        ]

    path = "/credits/reconciliation?gateway=razorpay&first=2026-11-01&last=2026-11-22"
    page = comparing(reconcile).get(path)
    assert asked == [("razorpay", date(2026, 11, 1), date(2026, 11, 22))]
    for shown in (
        "Different amount",
        "<org>",
        "p-1",
        "pay_1",
        "₹1,770.00",
        "₹1,00,000.00",
        "0 of 1000 credits",
    ):
        assert shown in page.text


def test_a_gateway_is_compared_only_on_request(comparing: Any) -> None:
    def reconcile(*_: object) -> list[Difference]:
        pytest.fail("nobody requested it")

    browser = comparing(reconcile)
    for query in ("", "?gateway=cash", "?gateway=razorpay&first=2026-11-02&last=2026-11-01"):
        assert browser.get(f"/credits/reconciliation{query}").status == 200


def test_an_unavailable_gateway_is_not_shown_as_equal(comparing: Any) -> None:
    def reconcile(*_: object) -> list[Difference]:
        raise GatewayUnavailable("razorpay does not answer: ConnectError")

    page = comparing(reconcile).get("/credits/reconciliation?gateway=razorpay")
    assert "The comparison failed: razorpay does not answer" in page.text
    assert "No differences." not in page.text


def test_reconciliation_is_for_staff_and_auditors(member: Browser, staff: Browser) -> None:
    assert member.get("/credits/reconciliation").status == 403
    assert "No payment gateway is configured." in staff.get("/credits/reconciliation").text
