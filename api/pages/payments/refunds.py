"""Refunds of payments by staff: of unspent credits, of a fee or a custom payment, or of a flagged attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.http.fields import ID_LENGTH_MAX
from api.http.problem_types import FieldError
from api.http.problems import invalid
from api.pages.payments.custom_payment_form import FIELD_NAMES, amount_text
from api.pages.shell import labels
from api.pages.shell.formats import formats_of
from api.pages.shell.forms import IDEMPOTENCY_FIELD, Form, FormResult, form_result_of
from api.pages.shell.page import Page, PageDep
from api.pages.shell.routing import PageRoute, redirect
from domain.credits.limits import CREDITS_MAX
from domain.payments.errors import RefundExceedsRefundableFee
from domain.payments.events import PaymentFlagged, RefundRequested
from domain.payments.gateway import id_for_gateway
from domain.payments.payment import Payment
from domain.payments.payment_state import PAID_STATUSES
from domain.payments.refunds import AttemptRefund, CreditRefund, FeeRefund, RefundRequest
from projections.credits import queries as credit_queries

_KINDS: Final = ("credits", "amount", "attempt")
"""The fields that select the refund. Exactly one is filled in."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PaymentId = Annotated[str, Query(min_length=1, max_length=ID_LENGTH_MAX)]
_Text = Annotated[str, Query(max_length=ID_LENGTH_MAX)]


@router.get("/credits/staff/refund-payment")
def get_refund_payment(
    page: PageDep, payment: _PaymentId, credits: _Text = "", amount: _Text = "", attempt: _Text = ""
) -> Response:
    """Show the possible refunds, or with a selected refund its preview, for confirmation."""
    fields = {"credits": credits, "amount": amount, "attempt": attempt}
    try:
        refund_request = _refund_request(Form(page.http, fields))
        preview = None if refund_request is None else _preview(page, payment, refund_request)
    except Exception as error:
        return _show(page, payment, fields, error=error)
    return _show(page, payment, fields, preview)


@router.post("/credits/staff/refund-payment")
def post_refund_payment(page: PageDep, payment: _PaymentId) -> Response:
    """Refund money, and take back what it bought."""
    form = Form(page.http)
    try:
        result = page.services.refunds.refund(
            page.organisation_id,
            payment,
            _refund_request(form) or CreditRefund(form.whole_number("credits", 1, CREDITS_MAX)),
            refund_id=id_for_gateway("ref", page.services.new_id()),
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )
    except Exception as error:
        return _show(page, payment, form.fields, error=error)
    return redirect(page.url("/credits/billing", payment=payment, min_position=result.position))


def _refund_request(form: Form) -> RefundRequest | None:
    """Return the refund request of a form, or None if it has none."""
    if form.fields.get("attempt"):
        return AttemptRefund(form.text("attempt", ID_LENGTH_MAX))
    if form.fields.get("amount"):
        amount_minor = form.amount_minor("amount")
        if amount_minor < 1:
            raise invalid("amount", "enter an amount above 0")
        return FeeRefund(amount_minor)
    if form.fields.get("credits"):
        return CreditRefund(form.whole_number("credits", 1, CREDITS_MAX))
    return None


def _preview(page: Page, payment_id: str, refund_request: RefundRequest) -> RefundRequested:
    return page.services.refunds.preview(
        page.organisation_id, payment_id, refund_request, page.command_context
    )


def _show(
    page: Page,
    payment_id: str,
    fields: Mapping[str, str],
    preview: RefundRequested | None = None,
    *,
    error: Exception | None = None,
) -> Response:
    payment = page.services.payments.payment(payment_id, page.organisation_id)
    outcome = FormResult() if error is None else _outcome_of(error, payment)
    unspent, fee_minor, flagged_attempts = None, payment.refundable_fee_minor, _flagged_attempts(payment)
    try:
        unspent = _preview(page, payment_id, CreditRefund())
    except Exception as refusal:
        refused = form_result_of(refusal)
        if not (fee_minor or flagged_attempts or outcome.field_errors):
            outcome = refused
    return page.render(
        "refund_payment.html",
        page.view(credit_queries.balance),
        outcome.status,
        field_errors=outcome.field_errors,
        idempotency_key=fields.get(IDEMPOTENCY_FIELD) or page.services.new_id(),
        payment_id=payment_id,
        terms=payment.terms,
        is_paid=payment.status in PAID_STATUSES,
        unspent=unspent,
        fee_minor=fee_minor,
        fee_text=amount_text(fee_minor),
        flagged_attempts=flagged_attempts,
        preview=preview,
        fields={kind: fields.get(kind, "") for kind in _KINDS},
        currency=None if preview is None else payment.currency_of(preview),
        words=labels,
    )


def _outcome_of(error: Exception, payment: Payment) -> FormResult:
    """Return the form result of an error. Shows amounts as money, not in minor units."""
    outcome = form_result_of(error, names=FIELD_NAMES)
    if not isinstance(error, RefundExceedsRefundableFee):
        return outcome
    refundable = formats_of(payment.terms.currency, "UTC").money(payment.refundable_fee_minor)
    field_error = FieldError(
        field="amount", message=f"at most {refundable} can still be refunded, excluding tax"
    )
    return FormResult([field_error], outcome.status)


def _flagged_attempts(payment: Payment) -> list[PaymentFlagged]:
    """Return the flags of attempts whose money can be refunded."""
    by_attempt = {key.gateway_payment_id: key for key in payment.flags if payment.is_refundable(key)}
    return [payment.flags[key] for key in by_attempt.values()]
