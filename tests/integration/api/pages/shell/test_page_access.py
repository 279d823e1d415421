"""Access to pages: every page and form, for every kind of user, for the own and for another organisation.

The table is a second, independent statement of the permissions. A page that is not in it fails.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from api.http.permissions import RULES
from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser

READERS = "admin member staff auditor"
MAY_OPEN = {
    "GET /credits": READERS,
    "GET /credits/months/{month}": READERS,
    "GET /credits/events/{event_id}": READERS,
    "GET /credits/runs": READERS,
    "GET /credits/balance": READERS,
    "GET /credits/subscription": READERS,
    "GET /credits/billing": READERS,
    "GET /credits/billing/papers/{paper}": READERS,
    "GET /credits/export/{name}": READERS,
    "GET /credits/auto-top-up": READERS,
    "POST /credits/auto-top-up": "admin staff",
    "POST /credits/auto-top-up/switch-on": "admin staff",
    "POST /credits/auto-top-up/switch-off": "admin staff",
    "GET /credits/purchase": "admin staff",
    "GET /credits/purchase/review": "admin staff",
    "GET /credits/purchase/payment": "admin staff",
    "POST /credits/purchase": "admin staff",
    "POST /credits/purchase/payment": "admin staff",
    "POST /credits/billing": "admin staff",
    "POST /credits/billing/recheck": "admin staff",
    "POST /credits/billing/abandon": "admin staff",
    "POST /credits/billing/invoice": "admin member staff",
    "GET /credits/staff/grant": "staff",
    "POST /credits/staff/grant": "staff",
    "GET /credits/staff/refund": "staff",
    "POST /credits/staff/refund": "staff",
    "GET /credits/staff/terms": "staff",
    "POST /credits/staff/price": "staff",
    "POST /credits/staff/plan": "staff",
    "GET /credits/staff/refund-payment": "staff",
    "POST /credits/staff/refund-payment": "staff",
    "POST /credits/staff/settle-flag": "staff",
    "GET /credits/staff/custom-payment": "staff",
    "POST /credits/staff/custom-payment": "staff",
}
ABOUT_NONE = {
    "GET /credits/organisations": READERS,
    "GET /credits/payments/{payment_id}/cancelled": READERS,
    "POST /credits/preferences": READERS,
    "GET /credits/dead-letters": "staff auditor",
    "GET /credits/flags": "staff auditor",
    "GET /credits/reconciliation": "staff auditor",
}
OPEN = {"POST /credits/payments/{payment_id}/return", "GET /credits/{address}"}
QUERY = {
    "/credits/runs": "run=run-1",
    "/credits/purchase/review": "quote=x",
    "/credits/purchase/payment": "payment=x",
}
EXAMPLES = {"month": "2026-11", "event_id": "1042", "paper": "CL-26-27-000001.pdf", "name": "usage.csv"}


def test_every_page_is_in_the_table() -> None:
    pages = {name for name in RULES if name.split()[1].startswith("/credits")}
    assert pages == MAY_OPEN.keys() | ABOUT_NONE.keys() | OPEN


def ask(browser: Browser, name: str, organisation_id: str | None, token: str) -> Any:
    """Open a page, or send an empty form."""
    method, path = name.split()
    path = re.sub(r"{(\w+)}", lambda part: EXAMPLES.get(part[1], "x"), path)
    query = [QUERY.get(path, "run=run-1&charge=4" if path == "/credits/staff/refund" else "")]
    if path == "/credits/staff/refund-payment":
        query = ["payment=x"]
    if organisation_id is not None:
        query.append(f"organisation={organisation_id}")
    address = f"{path}?{'&'.join(filter(None, query))}"
    return browser.post(address, csrf=token) if method == "POST" else browser.raw(address)


@pytest.mark.parametrize("who", READERS.split())
def test_users_open_exactly_their_pages(
    request: pytest.FixtureRequest, studio: str, who: str, subtests: pytest.Subtests
) -> None:
    browser: Browser = request.getfixturevalue(who)
    token = browser.csrf_token
    for name, may in {**MAY_OPEN, **ABOUT_NONE}.items():
        with subtests.test(name):
            response = ask(browser, name, studio if name in MAY_OPEN else None, token)
            assert (response.status_code == 403) is (who not in may.split()), response.text
            assert response.status_code != 500


@pytest.mark.parametrize("who", ["admin", "member"])
def test_another_organisation_is_unknown_on_every_page(
    request: pytest.FixtureRequest,
    organisation: str,
    ledger_api: LedgerApi,
    who: str,
    subtests: pytest.Subtests,
) -> None:
    ledger_api.catch_up()
    browser: Browser = request.getfixturevalue(who)
    token = browser.csrf_token
    for name in MAY_OPEN:
        with subtests.test(name):
            foreign = ask(browser, name, organisation.rpartition("/")[2], token)
            unknown = ask(browser, name, "nobody-has-this", token)
            assert foreign.status_code == unknown.status_code == 404
            assert "Organisation unknown" in foreign.text


def test_every_page_redirects_visitors_to_sign_in(
    open_browser: Any, studio: str, subtests: pytest.Subtests
) -> None:
    browser = open_browser()
    for name in {**MAY_OPEN, **ABOUT_NONE}:
        with subtests.test(name):
            response = ask(browser, name, studio, "x")
            assert response.status_code == 303
            assert response.headers["location"].startswith("/sign-in")
