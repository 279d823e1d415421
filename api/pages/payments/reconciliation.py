"""The reconciliation of a gateway with the ledger, for staff and auditors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from api.http.dependencies import ServicesDep
from api.pages.shell import labels
from api.pages.shell.formats import formats_of
from api.pages.shell.rendering import render
from api.pages.shell.routing import PageRoute
from domain.payments.gateway import GatewayError
from domain.payments.reconciliation import Difference, DifferenceKind
from domain.shared.money import Currency

_DEFAULT_SPAN: Final = timedelta(days=30)
_SPAN_MAX: Final = timedelta(days=366)

DIFFERENCE_LABELS: Final = {
    DifferenceKind.UNKNOWN_PAYMENT: "Unknown payment: the gateway has a payment without an order in the"
    " ledger",
    DifferenceKind.NOT_COMPLETED: "Not completed: paid at the gateway, not completed in the ledger",
    DifferenceKind.MISSING_AT_GATEWAY: "Missing at the gateway: completed in the ledger, not listed at the"
    " gateway",
    DifferenceKind.AMOUNT_DIFFERS: "Different amount",
    DifferenceKind.CURRENCY_DIFFERS: "Different currency",
    DifferenceKind.TAKEN_TWICE: "Paid twice: a second attempt was paid and not refunded",
    DifferenceKind.REFUND_MISSING_IN_LEDGER: "Refund missing in the ledger: the gateway refunded money",
    DifferenceKind.REFUND_MISSING_AT_GATEWAY: "Refund missing at the gateway",
    DifferenceKind.CREDITS_MISSING: "Credits missing: the added credits differ from the purchased ones",
}

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credits/reconciliation")
def get_reconciliation(
    http: Request,
    services: ServicesDep,
    gateway: Annotated[str, Query(max_length=32)] = "",
    first: date | None = None,
    last: date | None = None,
) -> Response:
    """Compare the selected gateway with the ledger, and show every difference."""
    gateways = services.pages.gateways
    today = services.clock().astimezone(UTC).date()
    last = last or today
    first = first or last - _DEFAULT_SPAN
    found: Sequence[Difference] | None = None
    error_message = ""
    if gateway in gateways:
        if not timedelta(0) <= last - first <= _SPAN_MAX:
            error_message = "The first day must be before the last day, and the period at most one year."
        else:
            try:
                found = services.pages.reconcile(gateway, first, last)
            except GatewayError as error:
                error_message = f"The comparison failed: {error}."
    return render(
        http,
        "reconciliation.html",
        gateways=[(name, labels.gateway(name)) for name in gateways],
        gateway=gateway,
        first=first,
        last=last,
        found=found,
        error_message=error_message,
        words=DIFFERENCE_LABELS,
        value=_format_value,
    )


def _format_value(difference: Difference, value: int | str | None) -> str:
    """Return an amount in its currency, and any other value as text."""
    if value is None:
        return "-"
    if isinstance(value, str) or difference.currency not in set(Currency):
        return str(value)
    return formats_of(Currency(difference.currency), "UTC").money(value)
