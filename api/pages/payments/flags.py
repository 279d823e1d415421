"""The list of payment flags of all organisations, for staff and auditors."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.http.dependencies import Services, ServicesDep
from api.http.fields import ID_LENGTH_MAX, REASON_LENGTH_MAX, PageCursor
from api.pages.shell import labels
from api.pages.shell.formats import formats_of, in_utc
from api.pages.shell.forms import Form, FormResult, form_result_of
from api.pages.shell.page import PageDep, PageReadDep
from api.pages.shell.rendering import render
from api.pages.shell.routing import PageRoute, redirect
from domain.identity.principals import PrincipalKind
from domain.payments.events import Flag, FlagKey
from domain.shared.money import AMOUNT_MINOR_MAX, Currency
from projections.payments import flag_queries

ROWS = 25
FLAGS = "/credits/flags"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(FLAGS)
def get_flags(http: Request, services: ServicesDep, read: PageReadDep, cursor: PageCursor = None) -> Response:
    """List the flags with their money, their gateway and the possible actions."""
    return _show(http, services, read, cursor)


@router.post("/credits/staff/settle-flag")
def post_settle_flag(page: PageDep, read: PageReadDep) -> Response:
    """Settle a flag."""
    form = Form(page.http)
    try:
        result = page.services.payments.settle_flag(
            page.organisation_id,
            form.text("payment", ID_LENGTH_MAX),
            FlagKey(
                form.choice("flag", Flag),
                form.text("attempt", ID_LENGTH_MAX),
                form.whole_number("amount", 0, AMOUNT_MINOR_MAX),
            ),
            form.text("note", REASON_LENGTH_MAX),
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )
    except Exception as error:
        return _show(page.http, page.services, read, None, form_result_of(error))
    return redirect(FLAGS, min_position=result.position)


def _show(
    http: Request,
    services: Services,
    read: PageReadDep,
    cursor: str | None,
    outcome: FormResult | None = None,
) -> Response:
    outcome = outcome or FormResult()
    data = read.view_all(flag_queries.flags, cursor, ROWS)
    context: dict[str, Any] = {
        "data": data,
        "notes": services.payments.notes([row.payment_id for row in data.flags]),
        "names": services.people.names(
            [http.state.session.principal.subject, *(row.settled_by for row in data.flags)]
        ),
        "is_staff": http.state.session.principal.kind is PrincipalKind.STAFF,
        "idempotency_key": services.new_id(),
        "field_errors": outcome.field_errors,
        "is_first_page": cursor is None,
        "money": lambda amount_minor, currency: formats_of(Currency.USD, "UTC").money(amount_minor, currency),
        "in_utc": lambda time: in_utc(time.isoformat()),
        "words": labels,
    }
    return render(http, "flags.html", outcome.status, **context)
