"""The documentation: /openapi.json, and /docs, a page built from it without scripts and network access."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.http import docs_page
from api.http.routes import StrictRoute

_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(route_class=StrictRoute, include_in_schema=False)


@router.get("/openapi.json")
async def get_openapi_document(request: Request) -> Response:
    """Return the OpenAPI document."""
    return Response(msgspec.json.encode(request.app.openapi()), media_type="application/json")


@router.get("/docs")
def get_docs(request: Request) -> HTMLResponse:
    """Return the reference as a page."""
    page = docs_page.render(request.app.openapi(), f"{request.url.scheme}://{request.headers['host']}")
    return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})


@router.get("/docs/reference.css")
async def get_stylesheet() -> Response:
    """Return the page's stylesheet."""
    return Response(_stylesheet(), media_type="text/css", headers={"Cache-Control": "max-age=3600"})


@cache
def _stylesheet() -> bytes:
    return (files("api") / "http" / "static" / "reference.css").read_bytes()
