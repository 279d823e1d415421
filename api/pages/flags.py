"""Everything odd about payments, of all organisations, in one list: for staff and auditors."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.dependencies import Provided, Services
from api.fields import ID_LENGTH_MAX, REASON_LENGTH_MAX, PageCursor
from api.identity import Kind
from api.pages import words
from api.pages.formats import formats_of, in_utc
from api.pages.forms import Form, Outcome, faults_of
from api.pages.page import PageRead, Shown
from api.pages.rendering import render
from api.pages.routing import PageRoute, redirect
from domain.money import AMOUNT_MINOR_MAX, Currency
from domain.payment_facts import Flag, FlagKey
from projections import flag_views

ROWS = 25
FLAGS = "/credits/flags"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(FLAGS)
def get_flags(http: Request, services: Provided, read: PageRead, cursor: PageCursor = None) -> Response:
    """List what is flagged: what the money was, where it lies, and what can be done."""
    return _show(http, services, read, cursor)


@router.post("/credits/staff/settle-flag")
def post_settle_flag(page: Shown, read: PageRead) -> Response:
    """Settle a flag that somebody dealt with."""
    form = Form(page.http)
    try:
        standing = page.services.payments.settle_flag(
            page.organisation_id,
            form.text("payment", ID_LENGTH_MAX),
            FlagKey(
                form.choice("flag", Flag),
                form.text("attempt", ID_LENGTH_MAX),
                form.whole("amount", 0, AMOUNT_MINOR_MAX),
            ),
            form.text("note", REASON_LENGTH_MAX),
            request=form.request,
            once=form.once(page.organisation_id),
        )
    except Exception as error:
        return _show(page.http, page.services, read, None, faults_of(error))
    return redirect(FLAGS, min_position=standing.position)


def _show(
    http: Request, services: Services, read: PageRead, cursor: str | None, outcome: Outcome | None = None
) -> Response:
    outcome = outcome or Outcome()
    seen = read.overview(flag_views.flags, cursor, ROWS)
    shown: dict[str, Any] = {
        "seen": seen,
        "notes": services.payments.notes([row.payment_id for row in seen.flags]),
        "names": services.people.names(
            [http.state.session.principal.subject, *(row.settled_by for row in seen.flags)]
        ),
        "is_staff": http.state.session.principal.kind is Kind.STAFF,
        "once": services.new_id(),
        "faults": outcome.faults,
        "is_first_page": cursor is None,
        "money": lambda amount_minor, currency: formats_of(Currency.USD, "UTC").money(amount_minor, currency),
        "in_utc": lambda moment: in_utc(moment.isoformat()),
        "words": words,
    }
    return render(http, "flags.html", outcome.status, **shown)
