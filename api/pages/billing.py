"""The Billing & Transactions tab: who invoices are made out to, payments, and what can be done about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from babel import Locale
from fastapi import APIRouter, Query
from starlette.responses import Response

from api.dependencies import Connection
from api.fields import PageCursor
from api.pages import words
from api.pages.forms import ONCE, Form, Outcome, faults_of
from api.pages.freshness import Freshness
from api.pages.page import Page, Shown
from api.pages.routing import PageRoute, redirect
from api.problems import explain
from domain.billing import Address, BillingDetails
from domain.errors import InvalidInput
from domain.gateway import GatewayError
from domain.invoice import number_of, path_of
from domain.payment_facts import Flag
from domain.payments import Payments
from domain.places import COUNTRIES
from projections import papers, payment_views, views
from projections.papers import BillingStanding
from projections.payment_papers import NO_PAPERS, PaperNumbers, papers_of
from projections.payment_views import PaymentPage
from projections.results import Balance

ROWS: Final = 25
RECHECK_WORTH_IT_AFTER: Final = timedelta(minutes=15)
LINES: Final = 2

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PaymentId = Annotated[str | None, Query(min_length=1, max_length=128)]


@dataclass(frozen=True)
class _Billing:
    balance: Balance
    details: BillingStanding
    payments: PaymentPage
    numbers: Mapping[str, PaperNumbers]
    freshness: Freshness
    position: int


@router.get("/credits/billing")
def get_billing(
    page: Shown, cursor: PageCursor = None, payment: _PaymentId = None, edit: str = ""
) -> Response:
    """Show billing details and payments; `payment` is the one that the browser comes back from."""
    return _show(page, cursor, payment, editing=bool(edit))


@router.post("/credits/billing")
def post_billing(page: Shown) -> Response:
    """Put billing details on file, and issue the invoices that waited for them."""
    form = Form(page.http)
    try:
        _, result = page.services.invoicing.change_billing_details(
            page.organisation_id,
            details_of(form),
            request=form.request,
            once=form.once(page.organisation_id),
        )
    except Exception as error:
        return _show(page, None, None, faults_of(error), form.fields)
    page.services.invoicing.issue_due(page.organisation_id, request=form.request)
    return redirect(page.url("/credits/billing", min_position=result.position))


@router.post("/credits/billing/recheck")
def post_recheck(page: Shown) -> Response:
    """Ask the gateway what has become of a payment."""
    form = Form(page.http)
    payment_id = form.text("payment", 128)
    try:
        standing = page.services.payments.recheck(
            payment_id, organisation_id=page.organisation_id, request=form.request
        )
    except GatewayError as error:
        return _show(page, None, payment_id, faults_of(error, also=explain(error).type.status))
    return redirect(page.url("/credits/billing", payment=payment_id, min_position=standing.position))


@router.post("/credits/billing/abandon")
def post_abandon(page: Shown) -> Response:
    """Give a payment up that nobody has paid."""
    form = Form(page.http)
    payment_id = form.text("payment", 128)
    standing = page.services.payments.abandon(page.organisation_id, payment_id, request=form.request)
    return redirect(page.url("/credits/billing", payment=payment_id, min_position=standing.position))


@router.post("/credits/billing/invoice")
def post_invoice(page: Shown) -> Response:
    """Issue the invoice of a payment, unless it is there, and lead on to it."""
    form = Form(page.http)
    documents = page.services.invoicing.issue(
        page.organisation_id, form.text("payment", 128), request=form.request
    )
    return redirect(page.url(f"/credits/billing/papers/{path_of(documents[0].number)}.pdf"))


@router.get("/credits/billing/papers/{paper}")
def get_paper(page: Shown, paper: str) -> Response:
    """Send an invoice or a credit note as a PDF."""
    issued = page.view(papers.invoice, number_of(paper.removesuffix(".pdf")))
    name = path_of(issued.document.number)
    return Response(
        page.services.print_invoice(issued.document),
        media_type="application/pdf",
        headers={"Content-Disposition": f'attachment; filename="{name}.pdf"'},
    )


def details_of(form: Form) -> BillingDetails:
    """Return the billing details a form says; the ledger checks them."""
    shipping = None if form.fields.get("shipping_same") else _address(form, "shipping")
    return BillingDetails(
        form.fields.get("name", ""),
        form.fields.get("email", ""),
        _address(form, "address"),
        form.fields.get("phone", "").strip() or None,
        form.fields.get("tax_id", "").strip() or None,
        shipping,
    )


def _address(form: Form, where: str) -> Address:
    def part(name: str) -> str:
        return form.fields.get(f"{where}.{name}", "")

    lines = [part("lines") if number == 1 else part(f"line_{number}") for number in range(1, LINES + 1)]
    if not lines[0].strip():
        raise InvalidInput(f"{where}.lines", "the first line of the address is required")
    return Address(
        part("country"),
        part("state"),
        part("city"),
        part("postal_code"),
        tuple(line for line in lines if line.strip()),
    )


def _show(
    page: Page,
    cursor: str | None,
    payment_id: str | None,
    outcome: Outcome | None = None,
    fields: Mapping[str, str] | None = None,
    *,
    editing: bool = False,
) -> Response:
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _Billing:
        listed = payment_views.payments(connection, organisation_id, cursor, ROWS)
        ids = [each.payment_id for each in listed.payments]
        return _Billing(
            views.balance(connection, organisation_id),
            papers.billing_details(connection, organisation_id),
            listed,
            papers_of(connection, organisation_id, ids),
            Freshness.of(views.positions(connection), now),
            listed.position,
        )

    seen = page.view(read)
    outcome = outcome or Outcome()
    came_back = next((each for each in seen.payments.payments if each.payment_id == payment_id), None)
    remarks = page.services.payments.remarks(
        page.organisation_id, [each.payment_id for each in seen.payments.payments if each.kind == "custom"]
    )
    return page.render(
        "billing.html",
        seen.balance,
        outcome.status,
        seen=seen,
        details=seen.details.details,
        filled=fields if fields is not None else _filled(seen.details.details),
        editing=editing or fields is not None,
        faults=outcome.faults,
        once=(fields or {}).get(ONCE) or page.services.new_id(),
        came_back=came_back,
        remarks=remarks,
        taken=_moved_oddly(page.services.payments, seen.payments),
        papers_of=lambda each: seen.numbers.get(each, NO_PAPERS),
        path_of=path_of,
        recheck_is_worth_it=lambda payment: now - payment.created_at >= RECHECK_WORTH_IT_AFTER,
        countries=countries(),
        is_first_page=cursor is None,
        words=words,
    )


def _moved_oddly(payments: Payments, page: PaymentPage) -> Mapping[str, int]:
    """Return what the attempts moved that payments are flagged for, in minor units, by payment."""
    moved: dict[str, int] = {}
    for row in page.payments:
        if row.flag is None:
            continue
        amounts = [amount for flag, _, amount in payments.payment(row.payment_id).flags if flag is row.flag]
        if row.flag is Flag.AMOUNT_DIFFERS and row.total_minor in amounts:
            continue  # it is the currency that differs
        moved[row.payment_id] = sum(amounts) if row.flag in words.GOES_BACK else max(amounts, default=0)
    return moved


def _filled(details: BillingDetails | None) -> Mapping[str, str]:
    """Return the form's fields as the details on file fill them in."""
    if details is None:
        return {"shipping_same": "yes"}
    filled: dict[str, Any] = {
        "name": details.name,
        "email": details.email,
        "phone": details.phone or "",
        "tax_id": details.tax_id or "",
        "shipping_same": "" if details.shipping else "yes",
    }
    for where, address in (("address", details.address), ("shipping", details.shipping)):
        if address is not None:
            filled |= {f"{where}.{part}": getattr(address, part) for part in ("country", "state", "city")}
            filled[f"{where}.postal_code"] = address.postal_code
            filled[f"{where}.lines"] = address.lines[0]
            filled[f"{where}.line_2"] = ", ".join(address.lines[1:])
    return filled


def countries() -> list[tuple[str, str]]:
    """Return codes and names of all countries, by name."""
    names = Locale("en").territories
    return sorted(((code, names.get(code, code)) for code in COUNTRIES), key=lambda each: each[1])
