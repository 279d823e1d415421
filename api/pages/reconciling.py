"""Does a gateway's account of the money equal the ledger's? For staff and auditors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from api.dependencies import Provided
from api.pages import words
from api.pages.formats import formats_of
from api.pages.rendering import render
from api.pages.routing import PageRoute
from domain.gateway import GatewayError
from domain.money import Currency
from domain.reconciliation import Difference, DifferenceKind

_SHOWN_AT_FIRST: Final = timedelta(days=30)
_SPAN_MAX: Final = timedelta(days=366)

WORDS: Final = {
    DifferenceKind.UNKNOWN_PAYMENT: "Unknown payment: the gateway took money for no order of ours",
    DifferenceKind.NOT_COMPLETED: "Not completed: the gateway took the money, and here it is not paid",
    DifferenceKind.MISSING_AT_GATEWAY: "Missing at the gateway: paid here, not listed there",
    DifferenceKind.AMOUNT_DIFFERS: "Another amount",
    DifferenceKind.CURRENCY_DIFFERS: "Another currency",
    DifferenceKind.TAKEN_TWICE: "Taken twice: another attempt took money too, and it is not back",
    DifferenceKind.REFUND_MISSING_IN_LEDGER: "Refund missing here: the gateway gave money back",
    DifferenceKind.REFUND_MISSING_AT_GATEWAY: "Refund missing at the gateway",
    DifferenceKind.CREDITS_MISSING: "Credits missing: not those that were bought were added",
}

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credits/reconciliation")
def get_reconciliation(
    http: Request,
    services: Provided,
    gateway: Annotated[str, Query(max_length=32)] = "",
    first: date | None = None,
    last: date | None = None,
) -> Response:
    """Compare the gateway that is asked for, and show every difference."""
    gateways = services.pages.gateways
    today = services.clock().astimezone(UTC).date()
    last = last or today
    first = first or last - _SHOWN_AT_FIRST
    found: Sequence[Difference] | None = None
    trouble = ""
    if gateway in gateways:
        if not timedelta(0) <= last - first <= _SPAN_MAX:
            trouble = "Choose a first day before the last one, and at most a year."
        else:
            try:
                found = services.pages.reconcile(gateway, first, last)
            except GatewayError as error:
                trouble = f"Nothing was compared: {error}."
    return render(
        http,
        "reconciliation.html",
        gateways=[(name, words.gateway(name)) for name in gateways],
        gateway=gateway,
        first=first,
        last=last,
        found=found,
        trouble=trouble,
        words=WORDS,
        value=_in_words,
    )


def _in_words(difference: Difference, value: int | str | None) -> str:
    """Return an amount in its currency; what is no amount as it is."""
    if value is None:
        return "-"
    if isinstance(value, str) or difference.currency not in set(Currency):
        return str(value)
    return formats_of(Currency(difference.currency), "UTC").money(value)
