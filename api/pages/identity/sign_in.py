"""Sign-in with a token or with a link of `creditledger up`, sign-out, and preferences."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from api.http.dependencies import Services, ServicesDep
from api.http.problems import HttpProblem, invalid
from api.http.sessions import (
    PAGE_PRINCIPAL_KINDS,
    SESSION_LIFETIME,
    SIGN_IN,
    Scheme,
    Session,
    TicketUsed,
)
from api.pages.shell.rendering import render
from api.pages.shell.routing import PageRoute, redirect
from domain.identity.principals import (
    Credentials,
    IdentityProviderUnavailable,
    InvalidCredentials,
    Principal,
)

HOME: Final = "/credits"
_LOCAL: Final = re.compile(r"/credits(?:[/?][!-\[\]-~]*)?", re.ASCII)
# The exact reason does not help the person who signs in. The log of the issuer has it.
_LINK_REFUSED: Final = "this sign-in link has expired or is incomplete: request a new one"
_TOKEN_REFUSED: Final = "the token is not valid: sign in on your platform again"  # noqa: S105

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class NotAPerson(InvalidCredentials):
    """The credentials are valid, but they do not belong to a person."""


@router.get("/sign-in")
def get_sign_in(
    http: Request,
    services: ServicesDep,
    ticket: Annotated[str | None, Query()] = None,
    next_path: Annotated[str, Query(alias="next")] = HOME,
) -> Response:
    """Sign in with a link, or show the form for a token."""
    if ticket is None:
        return _form(http, services, next_path)
    if services.pages.verify_ticket is None:
        return _form(http, services, next_path, "this service does not use sign-in links", 401)
    try:
        claim = services.pages.verify_ticket(ticket)
        return _start_session(http, services, claim.principal, next_path, claim.ticket_id)
    except (TicketUsed, NotAPerson) as refusal:
        return _form(http, services, next_path, str(refusal), 401)
    except InvalidCredentials:
        return _form(http, services, next_path, _LINK_REFUSED, 401)


@router.post("/sign-in")
def post_sign_in(http: Request, services: ServicesDep) -> Response:
    """Sign in with a token of the issuer. The platform's own sign-in page posts it."""
    form = http.state.form
    next_path = form.get("next", HOME)
    try:
        principal = services.identify(Credentials(token=form.get("token", "").strip()))
        return _start_session(http, services, principal, next_path)
    except NotAPerson as refusal:
        return _form(http, services, next_path, str(refusal), 401)
    except InvalidCredentials:
        return _form(http, services, next_path, _TOKEN_REFUSED, 401)
    except IdentityProviderUnavailable as error:
        raise HttpProblem("identities-unavailable", str(error)) from error


@router.post("/sign-out")
def post_sign_out(http: Request, services: ServicesDep) -> Response:
    """End the session."""
    services.pages.sessions.end(http.state.session.session_id)
    response = redirect(SIGN_IN)
    _set_cookie(services, response, "", 0)
    return response


@router.post("/credits/preferences")
def post_preferences(http: Request, services: ServicesDep) -> Response:
    """Save whether the price is shown, or the colour scheme."""
    session: Session = http.state.session
    form = http.state.form
    preferences = session.preferences
    if "price" in form:
        preferences = replace(preferences, shows_price=form["price"] == "show")
    if "scheme" in form:
        if form["scheme"] not in set(Scheme):
            raise invalid("scheme", f"choose one of {', '.join(Scheme)}")
        preferences = replace(preferences, scheme=Scheme(form["scheme"]))
    services.pages.sessions.save_preferences(session.principal.subject, preferences)
    return redirect(local_path(form.get("next", HOME)))


def local_path(path: str) -> str:
    """Return the path if it is one of our pages, else the home page. This prevents open redirects."""
    return path if _LOCAL.fullmatch(path) else HOME


def _start_session(
    http: Request, services: Services, principal: Principal, next_path: str, ticket_id: str | None = None
) -> Response:
    if principal.kind not in PAGE_PRINCIPAL_KINDS:
        raise NotAPerson("the pages are for people; programs use the API")
    if http.state.session is not None:
        services.pages.sessions.end(http.state.session.session_id)
    session = services.pages.sessions.open(principal, ticket_id)
    response = redirect(local_path(next_path))
    _set_cookie(services, response, session.session_id, int(SESSION_LIFETIME.total_seconds()))
    return response


def _set_cookie(services: Services, response: Response, value: str, max_age_s: int) -> None:
    response.set_cookie(
        services.pages.cookie_name,
        value,
        max_age=max_age_s,
        path="/",
        secure=services.pages.secure_cookies,
        httponly=True,
        samesite="lax",
    )


def _form(
    http: Request, services: Services, next_path: str, refusal: str = "", status: int = 200
) -> Response:
    return render(
        http,
        "sign_in.html",
        status,
        next_path=local_path(next_path),
        refusal=refusal,
        has_links=services.pages.verify_ticket is not None,
    )
