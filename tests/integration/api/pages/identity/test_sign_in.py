"""Sign-in to the pages: by a link or a token, once, for a limited time, and protected against other sites."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from api.http.dependencies import Services
from api.http.page_services import PageServices
from api.http.sessions import SESSION_LIFETIME
from infra.identity.sessions import PostgresSessions
from tests.integration.api.ledger_api import HOST, LedgerApi
from tests.integration.api.pages.browser import Browser

Open = Callable[..., Browser]


def pages_of(api: LedgerApi, **changes: Any) -> PageServices:
    known = vars(api.services.pages)
    return PageServices(**{**known, **changes})


def test_a_link_signs_in_and_redirects(open_browser: Open, ledger_api: LedgerApi, studio: str) -> None:
    ticket = ledger_api.issuer.ticket("u-1", organisations={studio: "member"})
    browser = open_browser()
    response = browser.raw("/sign-in", ticket=ticket, next="/credits/subscription")
    assert (response.status_code, response.headers["location"]) == (303, "/credits/subscription")
    assert "Available Credits" in browser.get("/credits").text


def test_a_link_works_once(open_browser: Open, ledger_api: LedgerApi, studio: str) -> None:
    ticket = ledger_api.issuer.ticket("u-1", organisations={studio: "member"})
    first = open_browser()
    assert first.get("/sign-in", ticket=ticket).status == 200
    first.submit(first.get("/credits").form("/sign-out"))
    again = open_browser().get("/sign-in", ticket=ticket)
    assert again.status == 401
    assert "already used" in again.text


@pytest.mark.parametrize("lasts", [timedelta(hours=-1), timedelta(minutes=-5)])
def test_a_link_expires(open_browser: Open, ledger_api: LedgerApi, lasts: timedelta) -> None:
    ticket = ledger_api.issuer.ticket("s-1", roles=["staff"], lifetime=lasts)
    assert "expired" in open_browser().get("/sign-in", ticket=ticket).text


def test_a_ticket_is_not_a_token_and_a_token_is_not_a_ticket(
    open_browser: Open, ledger_api: LedgerApi
) -> None:
    ticket = ledger_api.issuer.ticket("s-1", roles=["staff"])
    with ledger_api.client(headers={"Authorization": f"Bearer {ticket}"}) as client:
        assert client.get("/v1/organisations/org-1/balance").status_code == 401
    token = ledger_api.issuer.token("s-1", roles=["staff"])
    assert open_browser().get("/sign-in", ticket=token).status == 401


def test_there_are_no_links_where_the_issuer_is_not_embedded(
    open_browser: Open, ledger_api: LedgerApi
) -> None:
    browser = open_browser(pages=pages_of(ledger_api, verify_ticket=None))
    ticket = ledger_api.issuer.ticket("s-1", roles=["staff"])
    refused = browser.get("/sign-in", ticket=ticket)
    assert refused.status == 401
    assert "this service does not use sign-in links" in refused.text.lower()


def test_a_token_signs_in(open_browser: Open, ledger_api: LedgerApi, studio: str) -> None:
    browser = open_browser()
    form = browser.get("/credits").form("/sign-in")  # a visitor is redirected there
    token = ledger_api.issuer.token("u-1", organisations={studio: "admin"})
    page = browser.submit(form, token=token)
    assert "Available Credits" in page.text


def test_the_requested_page_opens_after_sign_in(
    open_browser: Open, ledger_api: LedgerApi, studio: str
) -> None:
    browser = open_browser()
    form = browser.get("/credits", tab="purchases").form("/sign-in")
    assert form.fields["next"] == "/credits?tab=purchases"


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c"])
def test_a_bad_token_is_refused_and_not_shown(open_browser: Open, token: str) -> None:
    browser = open_browser()
    page = browser.submit(browser.get("/sign-in").form("/sign-in"), token=token)
    assert page.status == 401
    assert "Not signed in." in page.text
    assert not token or token not in page.response.text


def test_programs_have_no_pages(open_browser: Open, ledger_api: LedgerApi) -> None:
    token = ledger_api.issuer.token("pipeline", roles=["service"])
    browser = open_browser()
    assert browser.submit(browser.get("/sign-in").form("/sign-in"), token=token).status == 401
    assert browser.raw("/credits").headers["location"].startswith("/sign-in")


def test_a_cookie_does_not_authenticate_for_the_api(member: Browser, studio: str) -> None:
    assert member.raw(f"/v1/organisations/{studio}/balance").status_code == 401


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    open_browser: Open, ledger_api: LedgerApi
) -> None:
    def cookie_of(browser: Browser) -> str:
        ticket = ledger_api.issuer.ticket("s-1", roles=["staff"])
        return str(browser.raw("/sign-in", ticket=ticket).headers["set-cookie"])

    for_trying = cookie_of(open_browser())
    assert for_trying.startswith("creditledger=")
    assert "HttpOnly" in for_trying
    assert "SameSite=lax" in for_trying
    assert f"Max-Age={int(SESSION_LIFETIME.total_seconds())}" in for_trying
    in_production = cookie_of(open_browser(pages=pages_of(ledger_api, secure_cookies=True)))
    assert in_production.startswith("__Host-creditledger=")
    for attribute in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert attribute in in_production
    assert "Domain" not in in_production


def test_only_a_digest_is_stored(member: Browser, ledger_api: LedgerApi) -> None:
    session_id = member.client.cookies["creditledger"]
    with psycopg.connect(ledger_api.conninfo) as connection:
        rows = connection.execute("SELECT to_jsonb(sessions)::text FROM ledger.sessions").fetchall()
    assert rows
    assert not any(session_id in row[0] for row in rows)


def test_signing_out_ends_the_session_everywhere(member: Browser, open_browser: Open) -> None:
    stolen = open_browser()
    stolen.client.cookies.update(member.client.cookies)
    assert "Available Credits" in stolen.get("/credits").text
    signed_out = member.submit(member.get("/credits").form("/sign-out"))
    assert "Sign in to Credit Ledger" in signed_out.text
    assert "Sign in to Credit Ledger" in stolen.get("/credits").text


def test_a_session_expires(ledger_api: LedgerApi, open_browser: Open, member: Browser) -> None:
    def later() -> datetime:
        return datetime.now(UTC) + SESSION_LIFETIME

    services: Services = ledger_api.services
    sessions = PostgresSessions(services.read_connection, later)
    browser = open_browser(pages=pages_of(ledger_api, sessions=sessions))
    browser.client.cookies.update(member.client.cookies)
    assert browser.raw("/credits").headers["location"].startswith("/sign-in")


def test_a_new_sign_in_ends_the_previous_session(
    member: Browser, open_browser: Open, ledger_api: LedgerApi
) -> None:
    before = open_browser()
    before.client.cookies.update(member.client.cookies)
    member.sign_in("s-1", roles=["staff"])
    assert before.raw("/credits").status_code == 303


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/credits\\..//evil.example",
        "javascript:alert(1)",
        "/creditsevil",
        "/credits?\r\nSet-Cookie: a=b",
        "",
    ],
)
def test_redirects_stay_on_the_site(
    open_browser: Open, ledger_api: LedgerApi, studio: str, elsewhere: str
) -> None:
    ticket = ledger_api.issuer.ticket("u-1", organisations={studio: "member"})
    browser = open_browser()
    assert browser.raw("/sign-in", ticket=ticket, next=elsewhere).headers["location"] == "/credits"
    sent = browser.post("/credits/preferences", csrf=browser.csrf_token, next=elsewhere)
    assert sent.headers["location"] == "/credits"


class TestForms:
    @pytest.mark.parametrize("token", ["", "wrong", "é"])
    def test_a_form_without_the_sessions_token_is_refused(self, member: Browser, token: str) -> None:
        response = member.post("/credits/preferences", csrf=token, price="show")
        assert response.status_code == 403
        assert "Form expired" in response.text

    def test_a_token_of_another_session_is_refused(self, member: Browser, staff: Browser) -> None:
        assert member.post("/credits/preferences", csrf=staff.csrf_token).status_code == 403

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
    def test_a_form_of_another_site_is_refused(self, member: Browser, origin: str) -> None:
        response = member.post("/credits/preferences", headers={"Origin": origin}, csrf=member.csrf_token)
        assert response.status_code == 403

    def test_other_content_types_are_refused(self, member: Browser) -> None:
        sent = member.client.post("/credits/preferences", json={}, headers={"Origin": f"http://{HOST}"})
        assert sent.status_code == 415
        twice = member.client.post(
            "/credits/preferences",
            content="csrf=a&csrf=b",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert twice.status_code == 422

    def test_a_form_after_the_session_redirects_to_sign_in(self, open_browser: Open) -> None:
        response = open_browser().post("/credits/preferences", csrf="x")
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in")


class TestSignInSite:
    """The platform's own sign-in page, on another site, sends users here with a token."""

    SITE = "https://app.example"

    @pytest.fixture
    def browser(self, open_browser: Open, ledger_api: LedgerApi) -> Browser:
        return open_browser(pages=pages_of(ledger_api, sign_in_origins=frozenset({self.SITE})))

    def _send(self, browser: Browser, api: LedgerApi, path: str, origin: str) -> Any:
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        return browser.post(path, headers=headers, token=api.issuer.token("s-1", roles=["staff"]))

    def test_it_may_send_a_token(self, browser: Browser, ledger_api: LedgerApi) -> None:
        response = self._send(browser, ledger_api, "/sign-in", self.SITE)
        assert (response.status_code, response.headers["location"]) == (303, "/credits")

    def test_no_other_site_may(self, browser: Browser, ledger_api: LedgerApi) -> None:
        assert self._send(browser, ledger_api, "/sign-in", "https://evil.example").status_code == 403

    def test_it_may_not_send_other_forms(self, browser: Browser, ledger_api: LedgerApi) -> None:
        assert self._send(browser, ledger_api, "/credits/preferences", self.SITE).status_code == 403
