"""Unknown paths below /credits: they return an error page."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.http.problems import HttpProblem
from api.pages.shell.routing import PageRoute

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credits/{address:path}")
def get_not_found(address: str) -> Response:
    """Return 404 as a page."""
    raise HttpProblem("not-found", f"the page /credits/{address} does not exist")
