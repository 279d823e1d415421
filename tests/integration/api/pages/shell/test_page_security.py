"""Security of the pages: other organisations, scripts of other sites, frames, and forged forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser

PAGES = ["/credits", "/credits/organisations", "/sign-in"]
HOSTILE = "<script>alert('x')</script>\"'>{{7*7}}"


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_security_headers(member: Browser, path: str) -> None:
    page = member.get(path)
    assert page.status == 200
    policy = page.response.headers["content-security-policy"]
    for directive in (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    ):
        assert directive in policy
    assert "unsafe" not in policy
    assert page.response.headers["x-content-type-options"] == "nosniff"
    assert page.response.headers["referrer-policy"] == "same-origin"
    assert page.response.headers["cache-control"] == "no-store"
    assert page.inline == []
    assert all(source.startswith("/assets/") for source in page.scripts)


def test_every_post_form_has_the_token(member: Browser) -> None:
    for form in member.get("/credits").forms:
        assert form.method == "get" or form.fields["csrf"] == member.csrf_token


def test_other_and_unknown_organisations_have_the_same_page(member: Browser, organisation: str) -> None:
    foreign = member.get("/credits", organisation=organisation.rpartition("/")[2])
    unknown = member.get("/credits", organisation="nobody-has-this")
    assert foreign.status == unknown.status == 404

    def without_request(page_text: str) -> str:
        return page_text.partition("Request")[0]

    assert without_request(foreign.text) == without_request(unknown.text)


def test_a_user_of_many_organisations_chooses_one(
    open_browser: Callable[..., Browser], studio: str, organisation: str, ledger_api: LedgerApi
) -> None:
    ledger_api.catch_up()
    other = organisation.rpartition("/")[2]
    browser = open_browser().sign_in("u-5", organisations={studio: "admin", other: "member"})
    choosing = browser.get("/credits")
    assert studio in choosing.text
    assert "Purchase Credits" in browser.get("/credits", organisation=studio).text
    assert "Purchase Credits" not in browser.get("/credits", organisation=other).text


def test_a_user_without_an_organisation(open_browser: Callable[..., Browser]) -> None:
    assert "You do not belong to an organisation" in open_browser().sign_in("u-6").get("/credits").text


def test_staff_and_auditors_find_every_organisation(
    staff: Browser, auditor: Browser, studio: str, ledger_api: LedgerApi
) -> None:
    for browser in (staff, auditor):
        assert studio in browser.get("/credits/organisations", find=studio[:-1]).text
        assert "Available Credits" in browser.get("/credits/organisations", find=studio).text
        assert "No organisation" in browser.get("/credits/organisations", find="zzz%_").text


def test_typed_text_is_escaped(client: object, staff: Browser, studio: str) -> None:
    page = staff.get("/credits/organisations", find=HOSTILE)
    assert "alert('x')" in page.text
    assert page.scripts == staff.get("/credits/organisations").scripts
    assert "{{7*7}}" in page.text


def test_an_error_is_a_page(member: Browser) -> None:
    page = member.get("/credits", nonsense="1")
    assert page.status == 422
    assert "this query parameter does not exist" in page.text
    assert "text/html" in page.response.headers["content-type"]
    assert "content-security-policy" in page.response.headers


def test_an_unknown_path_has_an_error_page(open_browser: Callable[..., Browser]) -> None:
    page = open_browser().get("/credits/nothing/here")
    assert page.status == 404
    assert "The page /credits/nothing/here does not exist" in page.text
    assert "content-security-policy" in page.response.headers


def test_assets_are_cached_and_named_by_their_content(member: Browser) -> None:
    (script,) = member.get("/credits").scripts
    response = member.raw(script)
    assert response.headers["content-type"].startswith("text/javascript")
    assert "immutable" in response.headers["cache-control"]
    assert member.raw("/assets/0000000000000000/pages.js").status_code == 404
    assert member.raw(script.rpartition("/")[0] + "/../templates").status_code == 404
