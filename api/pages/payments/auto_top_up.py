"""The Auto top-up page: its terms, its card, its last payment, and why it is paused today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from api.pages.shell import labels
from api.pages.shell.forms import IDEMPOTENCY_FIELD, Form, FormReader, FormResult, form_result_of
from api.pages.shell.page import Page, PageDep
from api.pages.shell.routing import PageRoute, redirect
from domain.credits.auto_top_up import THRESHOLD_MAX, TOP_UPS_PER_DAY_MAX, TopUpTerms
from domain.credits.errors import AutoTopUpNotOn
from domain.payments.errors import PaymentNotFound
from domain.payments.quotes import PurchasePlan
from domain.pricing.plans import Plan
from projections.connection import Connection
from projections.credits import queries as credit_queries
from projections.credits.auto_top_up_queries import AutoTopUpStatus, auto_top_up
from projections.credits.read_models import Balance
from projections.invoicing import queries as invoice_queries
from projections.payments import queries as payment_queries
from projections.payments.queries import PaymentRow

PATH: Final = "/credits/auto-top-up"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True)
class _AutoTopUpData:
    balance: Balance
    top_up_status: AutoTopUpStatus
    card_payment: PaymentRow | None
    last_payment: PaymentRow | None
    has_details: bool
    position: int


@router.get(PATH)
def get_auto_top_up(page: PageDep) -> Response:
    """Show the state of auto top-up."""
    return _show(page)


@router.post(PATH)
def post_auto_top_up(page: PageDep) -> Response:
    """Change the terms of auto top-up."""
    form = Form(page.http)
    try:
        result = page.services.top_ups.change(
            page.organisation_id,
            _terms(page, form),
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )
    except Exception as error:
        return _show(page, form_result_of(error), form)
    return redirect(page.url(PATH, min_position=result.position))


@router.post(PATH + "/switch-on")
def post_switch_on(page: PageDep) -> Response:
    """Quote the purchase that switches auto top-up on, and redirect to its review."""
    form = Form(page.http)
    try:
        terms = _terms(page, form)
        quoted = page.services.payments.quote(
            page.organisation_id,
            PurchasePlan.PAY_AS_YOU_GO,
            terms.credits,
            quote_id=page.services.new_id(),
            context=form.request,
            top_up=terms,
        )
    except Exception as error:
        return _show(page, form_result_of(error), form)
    return redirect(page.url("/credits/purchase/review", quote=quoted.quote_id))


@router.post(PATH + "/switch-off")
def post_switch_off(page: PageDep) -> Response:
    """Switch auto top-up off. If it is already off, only show the page."""
    form = Form(page.http)
    try:
        result = page.services.top_ups.switch_off(
            page.organisation_id,
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )
    except AutoTopUpNotOn:
        return redirect(page.url(PATH))
    return redirect(page.url(PATH, min_position=result.position))


def _terms(page: Page, form: Form) -> TopUpTerms:
    """Return the terms of a form.

    Raises:
        HttpProblem: fields are invalid. It names all of them.
    """
    minimum = page.services.ledger.prices.at(page.services.clock()).minimum_credits
    reader = FormReader()
    threshold = reader.read(0, form.whole_number, "threshold", 1, THRESHOLD_MAX)
    credits_count = reader.read(0, form.whole_number, "credits", minimum)
    per_day = reader.read(0, form.whole_number, "per_day", 1, TOP_UPS_PER_DAY_MAX)
    reader.check()
    return TopUpTerms(credits_count, threshold, per_day)


def _show(page: Page, outcome: FormResult | None = None, form: Form | None = None) -> Response:
    now = page.services.clock()

    def payment(connection: Connection, organisation_id: str, payment_id: str | None) -> PaymentRow | None:
        if payment_id is None:
            return None
        try:
            return payment_queries.payment(connection, organisation_id, payment_id).payments[0]
        except PaymentNotFound:  # the projection of payments may be a moment behind
            return None

    def read(connection: Connection, organisation_id: str) -> _AutoTopUpData:
        top_up_status = auto_top_up(connection, organisation_id)
        return _AutoTopUpData(
            credit_queries.balance(connection, organisation_id),
            top_up_status,
            payment(connection, organisation_id, top_up_status.card_of),
            payment(connection, organisation_id, top_up_status.last_payment_id),
            invoice_queries.billing_details(connection, organisation_id).details is not None,
            top_up_status.position,
        )

    data = page.view(read)
    outcome = outcome or FormResult()
    fields: dict[str, Any] = dict(form.fields) if form is not None else {}
    prices = page.services.ledger.prices.at(now)
    gateways = page.services.payments.gateways.values()
    return page.render(
        "auto_top_up.html",
        data.balance,
        outcome.status,
        data=data,
        top_up_status=data.top_up_status,
        begun_today=data.top_up_status.count_started_on(now),
        held_back=data.top_up_status.held_reason_at(now),
        is_offered=data.balance.plan is not Plan.ENTERPRISE
        and any(
            each.supports_recurring_charges and data.balance.currency in each.currencies for each in gateways
        ),
        minimum=prices.minimum_credits,
        most_per_day=TOP_UPS_PER_DAY_MAX,
        fields=fields,
        field_errors=outcome.field_errors,
        idempotency_key=fields.get(IDEMPOTENCY_FIELD) or page.services.new_id(),
        words=labels,
    )
