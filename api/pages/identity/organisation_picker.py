"""The choice of an organisation: a person's own ones, or for staff and auditors any, by its id."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from api.http.dependencies import ServicesDep
from api.http.sessions import Session
from api.pages.shell.formats import formats_of
from api.pages.shell.rendering import render
from api.pages.shell.routing import ORGANISATIONS, PageRoute, redirect
from projections.credits.organisation_search import find_organisations
from projections.query.row_security import repeatable_read

ROWS: Final = 50

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(ORGANISATIONS)
def get_organisations(
    http: Request,
    services: ServicesDep,
    find: Annotated[str, Query(max_length=64)] = "",
    after: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """List the organisations that the signed-in person may see."""
    session: Session = http.state.session
    principal = session.principal
    if principal.belongs_to_organisations:
        return render(http, "organisations.html", own=sorted(principal.memberships.items()))
    start = find.strip().replace("\0", "")
    with services.read_connection() as connection, repeatable_read(connection):
        found = find_organisations(connection, start, after.replace("\0", ""), ROWS + 1)
        if not found and start != start.lower():  # most ids are lowercase
            start = start.lower()
            found = find_organisations(connection, start, after.replace("\0", ""), ROWS + 1)
    if len(found) == 1 and found[0].organisation_id == start:
        return redirect("/credits", organisation=start)
    page, rest = found[:ROWS], found[ROWS:]
    return render(
        http,
        "organisations.html",
        found=page,
        find=find,
        next_after=page[-1].organisation_id if rest else None,
        formats_of=formats_of,
    )
