"""The outermost middleware: request ids, checks of host and origin, metrics, and unhandled errors."""

from __future__ import annotations

import logging
import re
from time import perf_counter
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.dependencies import Services
from api.http.metrics import RequestMetrics
from api.http.problems import HttpProblem, respond
from api.http.rate_limits import headers_of
from api.http.sessions import SIGN_IN

REQUEST_ID_HEADER: Final = "X-Request-Id"
_REQUEST_ID_PATTERN: Final = re.compile(r"[!-~]{1,128}")
_SEGMENT_SAFE: Final = "!$&'()*+,;=:@"  # RFC 3986 pchar, except letters, digits and -._~
_SAME_SITE_VALUES: Final = ("same-origin", "none")
_CLIENT_CLOSED_STATUS: Final = 499
_RETURN_PATH: Final = re.compile(r"/credits/payments/[^/]+/return")

_log = logging.getLogger("api")


class RequestMiddleware:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, services: Services, metrics: RequestMetrics) -> None:
        self._app = app
        self._services = services
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection. Anything but HTTP is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = scope["method"]
        is_head = method == "HEAD"
        request_id = self._request_id(headers)
        scope = {
            **scope,
            "method": "GET" if is_head else method,  # RFC 9110: HEAD is GET without the content
            "path": canonical_path(scope),
            "state": {**scope.get("state", {}), "request_id": request_id},
        }
        started_at = perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                outgoing = MutableHeaders(scope=message)
                outgoing[REQUEST_ID_HEADER] = request_id
                outgoing["X-Content-Type-Options"] = "nosniff"
                outgoing.setdefault("Cache-Control", "no-store")
                outgoing.update(headers_of(scope["state"].get("allowances", ())))
                if outgoing.get("Allow") == "GET":
                    outgoing["Allow"] = "GET, HEAD"
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            check_host(headers, self._services.allowed_hosts)
            if not self._allows_cross_site(method, scope["path"], headers):
                check_same_site(method, headers)
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = status or _CLIENT_CLOSED_STATUS
        except Exception as error:
            if status:
                _log.exception("request %s: failed after its response had started", request_id)
                raise
            await respond(Request(scope), error)(scope, receive, send_with_headers)
        finally:
            self._metrics.observe(method, scope, status or 500, perf_counter() - started_at)

    def _allows_cross_site(self, method: str, path: str, headers: Headers) -> bool:
        """Return whether other sites may send this request: a gateway's page, whose fields are signed, or the
        platform's own sign-in page."""
        comes_from_gateway = method == "POST" and _RETURN_PATH.fullmatch(path) is not None
        return comes_from_gateway or self._is_sign_in_post(method, path, headers)

    def _is_sign_in_post(self, method: str, path: str, headers: Headers) -> bool:
        """Return whether the platform's own sign-in page, on its own site, posts a token to our sign-in."""
        origins = headers.getlist("origin")
        sites = self._services.pages.sign_in_origins
        return (method, path) == ("POST", SIGN_IN) and len(origins) == 1 and origins[0].lower() in sites

    def _request_id(self, headers: Headers) -> str:
        sent_ids = headers.getlist(REQUEST_ID_HEADER)
        if len(sent_ids) == 1 and _REQUEST_ID_PATTERN.fullmatch(sent_ids[0]):
            return sent_ids[0]
        return self._services.new_id()


def canonical_path(scope: Scope) -> str:
    """Return the path with every segment percent-encoded in the same way.

    The router can then distinguish a slash in an id (%2F) from a separator. `api.http.fields` decodes
    segments.
    """
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return "/".join(quote(unquote_to_bytes(segment), safe=_SEGMENT_SAFE) for segment in raw.split(b"/"))


def check_host(headers: Headers, allowed_hosts: frozenset[str]) -> None:
    """Refuse host names that are not this server's, to prevent DNS rebinding.

    Raises:
        HttpProblem: host-not-allowed.
    """
    hosts = headers.getlist("host")
    host = hosts[0].lower() if len(hosts) == 1 else ""
    name = re.sub(r":\d*$", "", host)
    if not host or (host not in allowed_hosts and name not in allowed_hosts):
        raise HttpProblem("host-not-allowed", "the Host header does not name this server")


def check_same_site(method: str, headers: Headers) -> None:
    """Refuse requests that a browser sends on behalf of another site, except links to a page.

    Raises:
        HttpProblem: cross-site-request.
    """
    refused = HttpProblem("cross-site-request", "requests from pages of other sites are not allowed")
    site = headers.get("sec-fetch-site")
    follows_link = (
        method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if site is not None and site not in _SAME_SITE_VALUES and not follows_link:
        raise refused
    for origin in headers.getlist("origin"):
        try:
            authority = urlsplit(origin).netloc.lower()
        except ValueError:
            raise refused from None
        if authority != headers.get("host", "").lower():
            raise refused
