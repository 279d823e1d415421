"""Addresses that are no page: whoever mistypes one sees a page that says so."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.http.problems import HttpProblem
from api.pages.shell.routing import PageRoute

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credits/{address:path}")
def get_not_found(address: str) -> Response:
    """Say that there is no such page."""
    raise HttpProblem("not-found", f"there is no page /credits/{address}")
