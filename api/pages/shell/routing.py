"""The route class of the pages: sessions, CSRF-protected forms, and errors as pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.http.authentication import authorize
from api.http.dependencies import services_of
from api.http.permissions import Rule
from api.http.problems import HttpProblem, invalid, log_and_map
from api.http.routes import Handler, ReadRoute, read_body
from api.http.sessions import SIGN_IN
from api.pages.shell import rendering
from domain.identity.principals import Principal

ORGANISATIONS: Final = "/credits/organisations"
CSRF_FIELD: Final = "csrf"
_FORM_TYPE: Final = "application/x-www-form-urlencoded"
_FIELDS_MAX: Final = 64


class _Redirect(Exception):
    """The browser must first visit another page."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class PageRoute(ReadRoute):
    """Authenticates by session, parses forms, and shows errors as pages."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def page_handler(request: Request) -> Response:
            try:
                response = await handle(request)
            except _Redirect as target:
                response = RedirectResponse(target.path, status_code=303)
            except Exception as error:
                response = await run_in_threadpool(rendering.error_page, request, log_and_map(request, error))
            for name, value in rendering.headers(request).items():
                response.headers.setdefault(name, value)
            return response

        return page_handler

    async def authenticate(self, request: Request, rule: Rule) -> None:
        """Identify the signed-in person, check access, and parse the posted form.

        Raises:
            HttpProblem: role-insufficient, too-many-requests, form-expired or a problem of the form.
            OrganisationNotFound: the person does not belong to the organisation.
            psycopg.OperationalError: the database does not respond.
        """
        pages = services_of(request).pages
        session = await run_in_threadpool(pages.sessions.find, pages.session_id(request.cookies))
        request.state.session = session
        request.state.organisation_id = None
        if request.method == "POST":
            request.state.form = await _form_of(request)
        if rule.is_public:
            return
        if session is None:
            raise _Redirect(_sign_in_path(request))
        if not rule.signed_in and not rule.without_organisation:
            request.state.organisation_id = _organisation_of(request, session.principal)
            if request.state.organisation_id is None:
                raise _Redirect(ORGANISATIONS)
        authorize(request, rule, session.principal, request.state.organisation_id)
        if request.method == "POST" and not session.is_valid_csrf_token(
            request.state.form.get(CSRF_FIELD, "")
        ):
            raise HttpProblem(
                "form-expired",
                "the form belongs to an earlier session: reload the page and send the form again",
            )


def _organisation_of(request: Request, principal: Principal) -> str | None:
    """Return the organisation of a request: the one in its query, or the person's only one."""
    organisation_id = request.query_params.get("organisation")
    if organisation_id is None and len(principal.memberships) == 1:
        return next(iter(principal.memberships))
    return organisation_id


def _sign_in_path(request: Request) -> str:
    if request.method != "GET":
        return SIGN_IN
    query = request.url.query
    return f"{SIGN_IN}?{urlencode({'next': request.url.path + (f'?{query}' if query else '')})}"


async def _form_of(request: Request) -> Mapping[str, str]:
    """Return the fields of the form in a request. Each field may occur only once.

    Raises:
        HttpProblem: unsupported-media-type, body-too-large or invalid-request.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != _FORM_TYPE:
        raise HttpProblem("unsupported-media-type", f"a form must be sent as {_FORM_TYPE}")
    body = await read_body(request)
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAX)
    except ValueError:
        raise invalid("form", "cannot be parsed") from None
    form: dict[str, str] = {}
    for name, value in fields:
        if name in form:
            raise invalid(name, "sent more than once")
        form[name] = value
    return form


def redirect(path: str, **query: Any) -> Response:
    """Redirect a browser after a form.

    It loads the page with GET, so a reload does not send the form again.
    """
    parameters = {name: value for name, value in query.items() if value is not None}
    return RedirectResponse(f"{path}?{urlencode(parameters)}" if parameters else path, status_code=303)
