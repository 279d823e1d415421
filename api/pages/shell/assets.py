"""The stylesheet, the script and the icon of the pages."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.http.problems import HttpProblem
from api.http.routes import StrictRoute
from api.pages.shell.rendering import ASSETS, asset, asset_content

router = APIRouter(route_class=StrictRoute, include_in_schema=False)


@router.get("/assets/{digest}/{name}")
async def get_asset(digest: str, name: str) -> Response:
    """Return an asset. Its path contains the digest of its content, so the content never changes."""
    if name not in ASSETS or asset(name) != f"/assets/{digest}/{name}":
        raise HttpProblem("not-found", "no asset has this path")
    return Response(
        asset_content(name),
        media_type=ASSETS[name],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )
