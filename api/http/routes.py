"""The route classes of the API: access control, no unknown or repeated parameters, bounded JSON bodies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any, Final

import anyio
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message as AsgiMessage

from api.http.authentication import authenticate
from api.http.dependencies import ProjectionLagging, services_of
from api.http.permissions import Rule, rule_of
from api.http.problems import HttpProblem, invalid

BODY_BYTES_MAX: Final = 65_536
_PAUSE_FIRST_S: Final = 0.01
_PAUSE_MAX_S: Final = 0.1
_SINGLE_VALUE_HEADERS: Final = ("Idempotency-Key",)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """Checks that FastAPI does not make. They run after routing and before parsing."""

    def get_route_handler(self) -> Handler:
        handle = self.wrap_handler(super().get_route_handler())
        rule = rule_of(self.methods or (), self.path_format)
        known = frozenset(_query_names(self.dependant))
        takes_body = self.body_field is not None

        async def checked_handler(request: Request) -> Response:
            await self.authenticate(request, rule)
            _check_query(request, known)
            for name in _SINGLE_VALUE_HEADERS:
                if len(request.headers.getlist(name)) > 1:
                    raise invalid(name, "sent more than once")
            return await handle(await _with_json_body(request) if takes_body else request)

        return checked_handler

    async def authenticate(self, request: Request, rule: Rule) -> None:
        """Identify the caller and check access: see `api.http.authentication.authenticate`."""
        await authenticate(request, rule)

    def wrap_handler(self, handle: Handler) -> Handler:
        """Return the handler for requests that passed the checks."""
        return handle


class ReadRoute(StrictRoute):
    """Retries while the projections are behind `min_position`.

    No thread and no connection waits meanwhile.
    """

    def wrap_handler(self, handle: Handler) -> Handler:
        """Return a handler that retries until the projections have caught up, or the time limit is over."""

        async def retrying_handler(request: Request) -> Response:
            deadline = anyio.current_time() + services_of(request).wait_limit_s
            pause_s = _PAUSE_FIRST_S
            while True:
                try:
                    return await handle(request)
                except ProjectionLagging as lag:
                    if anyio.current_time() + pause_s > deadline:
                        raise HttpProblem("projection-behind", str(lag)) from None
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)

        return retrying_handler


def _query_names(dependant: Dependant) -> list[str]:
    own = [parameter.alias for parameter in dependant.query_params]
    return own + [name for each in dependant.dependencies for name in _query_names(each)]


def _check_query(request: Request, known: frozenset[str]) -> None:
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if name not in known:
            raise invalid(name, "this query parameter does not exist")
        if count > 1:
            raise invalid(name, "sent more than once")


async def _with_json_body(request: Request) -> Request:
    """Return the request with its body read and checked to be JSON.

    Raises:
        HttpProblem: unsupported-media-type, body-too-large or malformed-json.
    """
    _check_media_type(request.headers)
    body = await read_body(request)
    try:
        json.loads(body.decode(), parse_constant=_reject_constant, object_pairs_hook=_reject_duplicate_fields)
    except (RecursionError, ValueError) as error:
        raise HttpProblem("malformed-json", _json_error_text(error)) from None

    async def replay() -> AsgiMessage:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, replay)


def _check_media_type(headers: Headers) -> None:
    content_type = Message()
    content_type["Content-Type"] = header = headers.get("content-type", "")
    if header.partition(";")[0].strip().lower() != "application/json":
        raise HttpProblem("unsupported-media-type", "the request needs Content-Type: application/json")
    charset = str(content_type.get_param("charset", "utf-8"))
    if charset.lower() != "utf-8":
        raise HttpProblem("unsupported-media-type", "JSON must be UTF-8: leave the charset out")
    encodings = ",".join(headers.getlist("content-encoding")).lower().split(",")
    if any(encoding.strip() not in ("", "identity") for encoding in encodings):
        raise HttpProblem(
            "unsupported-media-type",
            "compressed bodies are not supported: send the body without a Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )


def _json_error_text(error: Exception) -> str:
    """Return a readable reason why a body is not valid JSON."""
    match error:
        case _NotJson():
            return f"the body is not JSON: {error}"
        case RecursionError():
            return "the body is nested too deeply"
        case UnicodeDecodeError():
            return f"the body is not UTF-8: byte {error.start + 1} is invalid"
        case json.JSONDecodeError() if error.msg.startswith("Unexpected UTF-8 BOM"):
            return "the body begins with a byte order mark, which JSON does not allow"
        case json.JSONDecodeError():
            return f"the body is not JSON: {error.msg}, at line {error.lineno}, column {error.colno}"
        case _:
            return "the body has a number with thousands of digits"


async def read_body(request: Request) -> bytes:
    """Return a request's body.

    Raises:
        HttpProblem: body-too-large.
    """
    too_large = HttpProblem("body-too-large", f"the body has more than {BODY_BYTES_MAX:,} bytes")
    content_length = request.headers.get("content-length", "")
    if content_length.isdecimal() and (len(content_length) > 18 or int(content_length) > BODY_BYTES_MAX):
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


class _NotJson(ValueError):
    """Something that Python's parser accepts and JSON does not allow."""


def _reject_constant(name: str) -> None:
    raise _NotJson(f"{name} is not a JSON number")


def _reject_duplicate_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _NotJson("a field name is repeated")
    return content
