"""The Billing & Transactions page: billing details, payments, and actions on payments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.http.fields import PageCursor
from api.http.problems import problem_of
from api.pages.payments import billing_form
from api.pages.shell import labels
from api.pages.shell.forms import IDEMPOTENCY_FIELD, Form, FormResult, form_result_of
from api.pages.shell.freshness import Freshness
from api.pages.shell.page import Page, PageDep
from api.pages.shell.routing import PageRoute, redirect
from domain.invoicing.countries import INDIA
from domain.invoicing.invoice_series import number_of, path_of
from domain.payments.events import Flag
from domain.payments.gateway import GatewayError
from domain.payments.service import Payments
from domain.shared.money import Currency
from projections.connection import Connection
from projections.credits import queries as credit_queries
from projections.credits.read_models import Balance
from projections.invoicing import queries as invoice_queries
from projections.invoicing.document_numbers import (
    NO_DOCUMENTS,
    DocumentNumbers,
    document_numbers_of,
)
from projections.invoicing.queries import BillingDetailsStatus
from projections.payments import queries as payment_queries
from projections.payments.queries import PaymentPage

ROWS: Final = 25
RECHECK_AFTER: Final = timedelta(minutes=15)

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PaymentId = Annotated[str | None, Query(min_length=1, max_length=128)]


@dataclass(frozen=True)
class _BillingData:
    balance: Balance
    details: BillingDetailsStatus
    payments: PaymentPage
    numbers: Mapping[str, DocumentNumbers]
    freshness: Freshness
    position: int


@router.get("/credits/billing")
def get_billing(
    page: PageDep, cursor: PageCursor = None, payment: _PaymentId = None, edit: str = ""
) -> Response:
    """Show billing details and payments. `payment` is the payment from which the browser returns."""
    return _show(page, cursor, payment, editing=bool(edit))


@router.post("/credits/billing")
def post_billing(page: PageDep) -> Response:
    """Save billing details, and issue the invoices that waited for them."""
    form = Form(page.http)
    try:
        _, result = page.services.invoicing.change_billing_details(
            page.organisation_id,
            billing_form.details_of(form),
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )
    except Exception as error:
        return _show(
            page,
            None,
            None,
            form_result_of(error, names=billing_form.form_field_names(form.fields)),
            form.fields,
        )
    page.services.invoicing.issue_due(page.organisation_id, context=form.request)
    return redirect(page.url("/credits/billing", min_position=result.position))


@router.post("/credits/billing/recheck")
def post_recheck(page: PageDep) -> Response:
    """Recheck a payment with its gateway."""
    form = Form(page.http)
    payment_id = form.text("payment", 128)
    try:
        result = page.services.payment_tracking.recheck(
            payment_id, organisation_id=page.organisation_id, context=form.request
        )
    except GatewayError as error:
        return _show(
            page, None, payment_id, form_result_of(error, allowed_status=problem_of(error).type.status)
        )
    return redirect(page.url("/credits/billing", payment=payment_id, min_position=result.position))


@router.post("/credits/billing/abandon")
def post_abandon(page: PageDep) -> Response:
    """Abandon an unpaid payment."""
    form = Form(page.http)
    payment_id = form.text("payment", 128)
    result = page.services.payments.abandon(page.organisation_id, payment_id, context=form.request)
    return redirect(page.url("/credits/billing", payment=payment_id, min_position=result.position))


@router.post("/credits/billing/invoice")
def post_invoice(page: PageDep) -> Response:
    """Issue the invoice of a payment, unless it exists, and redirect to it."""
    form = Form(page.http)
    documents = page.services.invoicing.issue(
        page.organisation_id, form.text("payment", 128), context=form.request
    )
    return redirect(page.url(f"/credits/billing/papers/{path_of(documents[0].number)}.pdf"))


@router.get("/credits/billing/papers/{paper}")
def get_billing_document(page: PageDep, paper: str) -> Response:
    """Send an invoice or a credit note as a PDF."""
    issued = page.view(invoice_queries.invoice, number_of(paper.removesuffix(".pdf")))
    name = path_of(issued.document.number)
    return Response(
        page.services.print_invoice(issued.document),
        media_type="application/pdf",
        headers={"Content-Disposition": f'attachment; filename="{name}.pdf"'},
    )


def _show(
    page: Page,
    cursor: str | None,
    payment_id: str | None,
    outcome: FormResult | None = None,
    fields: Mapping[str, str] | None = None,
    *,
    editing: bool = False,
) -> Response:
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _BillingData:
        listed = payment_queries.payments(connection, organisation_id, cursor, ROWS)
        ids = [each.payment_id for each in listed.payments]
        return _BillingData(
            credit_queries.balance(connection, organisation_id),
            invoice_queries.billing_details(connection, organisation_id),
            listed,
            document_numbers_of(connection, organisation_id, ids),
            Freshness.of(credit_queries.positions(connection), now),
            listed.position,
        )

    data = page.view(read)
    outcome = outcome or FormResult()
    returned_payment = next((each for each in data.payments.payments if each.payment_id == payment_id), None)
    form_values = fields if fields is not None else billing_form.form_values(data.details.details)
    default_country = INDIA if data.balance.currency is Currency.INR else "US"
    remarks = page.services.payments.remarks(
        page.organisation_id, [each.payment_id for each in data.payments.payments if each.kind == "custom"]
    )
    return page.render(
        "billing.html",
        data.balance,
        outcome.status,
        data=data,
        details=data.details.details,
        form_values=form_values,
        default_country=default_country,
        labels=billing_form.LABELS,
        editing=editing or fields is not None,
        field_errors=outcome.field_errors,
        idempotency_key=(fields or {}).get(IDEMPOTENCY_FIELD) or page.services.new_id(),
        returned_payment=returned_payment,
        remarks=remarks,
        flagged_amounts=_flagged_amounts(page.services.payments, data.payments),
        document_numbers_of=lambda each: data.numbers.get(each, NO_DOCUMENTS),
        path_of=path_of,
        can_recheck=lambda payment: now - payment.created_at >= RECHECK_AFTER,
        countries=billing_form.countries(),
        states=billing_form.STATES,
        is_first_page=cursor is None,
        words=labels,
    )


def _flagged_amounts(payments: Payments, page: PaymentPage) -> Mapping[str, int]:
    """Return the amounts of the flagged attempts, in minor units, by payment id."""
    amounts_by_payment: dict[str, int] = {}
    for row in page.payments:
        if row.flag is None:
            continue
        open_flags = payments.payment(row.payment_id).open_flags
        amounts = [amount for flag, _, amount in open_flags if flag is row.flag]
        if row.flag is Flag.AMOUNT_DIFFERS and row.total_minor in amounts:
            continue  # only the currency differs
        amounts_by_payment[row.payment_id] = (
            sum(amounts) if row.flag in labels.REFUND_EXPLANATIONS else max(amounts, default=0)
        )
    return amounts_by_payment
