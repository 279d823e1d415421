"""The Billing & Transactions tab: who invoices are made out to, payments, and what can be done about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.dependencies import Connection
from api.fields import PageCursor
from api.pages import billing_form, words
from api.pages.forms import ONCE, Form, Outcome, faults_of
from api.pages.freshness import Freshness
from api.pages.page import Page, Shown
from api.pages.routing import PageRoute, redirect
from api.problems import explain
from domain.gateway import GatewayError
from domain.invoice import number_of, path_of
from domain.money import Currency
from domain.payment_facts import Flag
from domain.payments import Payments
from domain.places import INDIA
from projections import papers, payment_views, views
from projections.papers import BillingStanding
from projections.payment_papers import NO_PAPERS, PaperNumbers, papers_of
from projections.payment_views import PaymentPage
from projections.results import Balance

ROWS: Final = 25
RECHECK_WORTH_IT_AFTER: Final = timedelta(minutes=15)

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
            billing_form.details_of(form),
            request=form.request,
            once=form.once(page.organisation_id),
        )
    except Exception as error:
        return _show(page, None, None, faults_of(error, names=billing_form.names(form.fields)), form.fields)
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
    filled = fields if fields is not None else billing_form.filled(seen.details.details)
    home = INDIA if seen.balance.currency is Currency.INR else "US"
    remarks = page.services.payments.remarks(
        page.organisation_id, [each.payment_id for each in seen.payments.payments if each.kind == "custom"]
    )
    return page.render(
        "billing.html",
        seen.balance,
        outcome.status,
        seen=seen,
        details=seen.details.details,
        filled=filled,
        home=home,
        labels=billing_form.LABELS,
        editing=editing or fields is not None,
        faults=outcome.faults,
        once=(fields or {}).get(ONCE) or page.services.new_id(),
        came_back=came_back,
        remarks=remarks,
        taken=_moved_oddly(page.services.payments, seen.payments),
        papers_of=lambda each: seen.numbers.get(each, NO_PAPERS),
        path_of=path_of,
        recheck_is_worth_it=lambda payment: now - payment.created_at >= RECHECK_WORTH_IT_AFTER,
        countries=billing_form.countries(),
        states=billing_form.STATES,
        is_first_page=cursor is None,
        words=words,
    )


def _moved_oddly(payments: Payments, page: PaymentPage) -> Mapping[str, int]:
    """Return what the attempts moved that payments are flagged for, in minor units, by payment."""
    moved: dict[str, int] = {}
    for row in page.payments:
        if row.flag is None:
            continue
        open_flags = payments.payment(row.payment_id).open_flags
        amounts = [amount for flag, _, amount in open_flags if flag is row.flag]
        if row.flag is Flag.AMOUNT_DIFFERS and row.total_minor in amounts:
            continue  # it is the currency that differs
        moved[row.payment_id] = sum(amounts) if row.flag in words.GOES_BACK else max(amounts, default=0)
    return moved
