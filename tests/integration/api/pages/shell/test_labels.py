"""Texts of the pages: readable dates, no codes, and no contradictory advice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.pages.shell import labels
from api.pages.shell.formats import in_utc
from domain.payments.gateway import AttemptStatus
from domain.pricing.rate_card import UsageType
from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser
from tests.integration.api.pages.payments.test_payment_pages import begin, pay
from tests.payment_gateway import InMemoryGateway


def test_the_end_of_a_plan_is_a_readable_date(
    admin: Browser, studio: str, client: Any, ledger_api: LedgerApi
) -> None:
    ends_at = datetime.now(UTC) + timedelta(days=9)
    body = {"plan": "pro", "expires_at": ends_at.isoformat()}
    client.put(f"/v1/organisations/{studio}/plan", json=body).raise_for_status()
    ledger_api.catch_up()
    for path in ("/credits", "/credits/subscription"):
        text = admin.get(path).text
        assert "Expires on " in text
        assert f"Expires on {ends_at:%Y}" not in text, "no ISO 8601"


def test_every_usage_type_has_a_label() -> None:
    assert labels.USAGE_TYPES.keys() == set(UsageType)


def test_the_moment_of_a_dead_letter() -> None:
    assert in_utc("2026-11-22T09:14:50.123+00:00") == "22 Nov 2026, 09:14:50 UTC"
    assert in_utc("") == ""


@pytest.mark.parametrize("plan", ["pro", "enterprise"])
def test_no_pay_as_you_go_advice_with_pro_or_custom_billing(
    member: Browser, studio: str, client: Any, ledger_api: LedgerApi, plan: str
) -> None:
    client.put(f"/v1/organisations/{studio}/plan", json={"plan": plan}).raise_for_status()
    now = datetime.now(UTC)
    for months in range(1, 4):
        ledger_api.charge(studio, f"before-{months}", 4_000 - months * 900, now - timedelta(days=30 * months))
    ledger_api.catch_up()
    text = member.get("/credits").text
    for advice in ("compare with Pro", "stay on Pay As You Go", "See Pro", "Pay As You Go fits"):
        assert advice not in text


def test_a_spike_has_the_name_of_its_event(member: Browser, studio: str, ledger_api: LedgerApi) -> None:
    now = datetime.now(UTC)
    for days in (31, 62, 93):
        ledger_api.charge(studio, f"before-{days}", 10, now - timedelta(days=days))
    ledger_api.catch_up()
    page = member.get("/credits")
    assert "mostly City Marathon 2026" in page.text
    assert page.links["City Marathon 2026"].startswith("/credits/events/1042")


def test_singular_for_one_credit(member: Browser, studio: str, ledger_api: LedgerApi) -> None:
    ledger_api.charge(studio, "run-of-one", 1)
    ledger_api.catch_up()
    event = member.get("/credits/events/1042")
    (link,) = [link for name, link in event.links.items() if "run-of-one" in name]
    text = member.get(link).text
    assert "Why 1 credit " in text


def test_gst_is_shown_before_any_choice(admin: Browser) -> None:
    text = admin.get("/credits/purchase").text
    assert "₹1.50 each plus 18 % GST" in text
    assert "₹10,000.00 plus 18 % GST" in text


def test_a_failed_purchase_can_be_repeated(
    admin: Browser, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> None:
    pay(begin(admin), gateway, ledger_api, status=AttemptStatus.FAILED)
    page = admin.get("/credits/billing")
    assert "Failed" in page.text
    assert "credits=1000" in page.links["Buy again"]


def test_gateway_codes_have_labels() -> None:
    assert labels.reason("CUSTOMER_CANCELLED") == "cancelled by the payer"
    assert labels.reason("GATEWAY_TIMED_OUT") == "gateway timed out"


def test_a_huge_number_of_photos_is_an_error_of_its_field(member: Browser) -> None:
    page = member.get("/credits", photos="9" * 60)
    assert page.status == 200
    assert "Enter a whole number of photos" in page.text


def test_an_invalid_url_is_explained_without_type_names(member: Browser) -> None:
    page = member.get("/credits", tab="nonsense")
    assert page.status == 422
    assert "Invalid request" in page.text
    assert "Input should be" not in page.text
    assert "should be 'usage' or 'purchases'" in page.text


def test_a_refusal_names_the_required_role(member: Browser) -> None:
    page = member.get("/credits/purchase")
    assert page.status == 403
    assert "Your role does not allow this" in page.text
    assert "Role insufficient" not in page.text
    assert "Allowed for admins of the organisation and staff. Ask an admin of the organisation." in page.text


def test_a_refusal_sends_nobody_to_an_admin_who_may_not_do_it_either(member: Browser) -> None:
    page = member.get("/credits/flags")
    assert page.status == 403
    assert "Allowed for staff and auditors." in page.text
    assert "Ask an admin" not in page.text


@pytest.mark.parametrize("ticket", ["garbage", "a.b.c"])
def test_a_broken_link_is_explained_in_plain_words(open_browser: Any, ticket: str) -> None:
    page = open_browser().get("/sign-in", ticket=ticket)
    assert page.status == 401
    assert "JWT" not in page.text
    assert "request a new one" in page.text or "does not use sign-in links" in page.text


def test_organisation_search_ignores_case(staff: Browser, studio: str) -> None:
    assert studio in staff.get("/credits/organisations", find=studio[:-1].title()).text
    assert "begins with" in staff.get("/credits/organisations", find="No-Such").text
