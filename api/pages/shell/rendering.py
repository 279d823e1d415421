"""Renders templates to pages, and sets their security headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.http.dependencies import services_of
from api.http.problems import HttpProblem, headers_of
from api.http.sessions import Preferences, Session

_FOLDER: Final = files("api") / "pages"
ASSETS: Final = {"pages.css": "text/css", "pages.js": "text/javascript", "icon.svg": "image/svg+xml"}

_TYPE_NAMES: Final = re.compile(r"^(?:Input|String|Value|List|Field)(?: error,)? (?=should|required)")
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action {forms}; frame-ancestors 'none'; base-uri 'none'"
)


def headers(request: Request) -> Mapping[str, str]:
    """Return the headers of every page.

    A page with a form to a gateway sets its own content security policy.
    """
    return {
        "Content-Security-Policy": content_security_policy(),
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
        "Cross-Origin-Opener-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }


def content_security_policy(*gateways: str) -> str:
    """Return the content security policy. Forms may submit to our own pages and to the origins `gateways`."""
    return _POLICY.format(forms=" ".join(["'self'", *gateways]))


def render(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Return a page."""
    session: Session | None = getattr(request.state, "session", None)
    preferences = session.preferences if session else Preferences()
    common = {
        "session": session,
        "csrf": session.csrf_token if session else "",
        "scheme": preferences.scheme.value,
        "support": support_link(services_of(request).pages.support_contact),
        "asset": asset,
        "current_url": path_with_query(request),
        "language": "en",
    }
    text = _templates().get_template(template).render({**common, **context})
    return HTMLResponse(text, status)


def error_page(request: Request, problem: HttpProblem) -> Response:
    """Return a problem as a page, with links to continue."""
    response = render(
        request,
        "error.html",
        problem.type.status,
        problem=problem,
        request_id=request.state.request_id,
    )
    for name, value in headers_of(problem).items():
        response.headers[name] = value
    return response


def path_with_query(request: Request) -> str:
    """Return the path and the query of a request."""
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def support_link(contact: str) -> Markup:
    """Return a link to the support contact, or an empty text without one."""
    if not contact:
        return Markup("")
    address = f"mailto:{contact}" if "@" in contact and "/" not in contact else contact
    return Markup('<a href="{}">{}</a>').format(address, contact.removeprefix("https://"))


def asset(name: str) -> str:
    """Return the path of an asset.

    It contains the digest of the content, so browsers may cache it without a limit.
    """
    return f"/assets/{blake2b(asset_content(name), digest_size=8).hexdigest()}/{name}"


@cache
def asset_content(name: str) -> bytes:
    """Return the content of an asset of `ASSETS`."""
    return (_FOLDER / "static" / name).read_bytes()


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(str(_FOLDER / "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = _sentence
    environment.filters["plain"] = _without_type_names
    return environment


def _without_type_names(message: str) -> str:
    """Return an error message without type names, which help only programmers of the API."""
    return _TYPE_NAMES.sub("", message)


def _sentence(text: str) -> str:
    """Return the text with a capital first letter, otherwise unchanged."""
    return text[:1].upper() + text[1:]
