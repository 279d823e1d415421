"""How staff give money back: of unspent credits, of a fee or a custom payment, or what was taken oddly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.fields import ID_LENGTH_MAX
from api.pages import words
from api.pages.custom_payments import FIELD_NAMES, typed
from api.pages.formats import formats_of
from api.pages.forms import ONCE, Form, Outcome, faults_of
from api.pages.page import Page, Shown
from api.pages.routing import PageRoute, redirect
from api.problem_types import FieldError
from api.problems import invalid
from domain.errors import RefundExceedsPayment
from domain.organisation import CREDITS_MAX
from domain.payment import PAID, Payment
from domain.payment_facts import Asked, PaymentFlagged
from domain.payment_refunds import AttemptBack, Back, CreditsBack, FeeBack
from projections import views

_KINDS: Final = ("credits", "amount", "attempt")
"""Fields that say what is to go back: one of them is filled in."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PaymentId = Annotated[str, Query(min_length=1, max_length=ID_LENGTH_MAX)]
_Text = Annotated[str, Query(max_length=ID_LENGTH_MAX)]


@router.get("/credits/staff/refund-payment")
def get_refund_payment(
    page: Shown, payment: _PaymentId, credits: _Text = "", amount: _Text = "", attempt: _Text = ""
) -> Response:
    """Show what can go back, or with one of the others what giving it back would do, to be confirmed."""
    fields = {"credits": credits, "amount": amount, "attempt": attempt}
    try:
        back = _back(Form(page.http, fields))
        asked = None if back is None else _preview(page, payment, back)
    except Exception as error:
        return _show(page, payment, fields, error=error)
    return _show(page, payment, fields, asked)


@router.post("/credits/staff/refund-payment")
def post_refund_payment(page: Shown, payment: _PaymentId) -> Response:
    """Give money back, and take what it bought."""
    form = Form(page.http)
    try:
        standing = page.services.payments.refund(
            page.organisation_id,
            payment,
            _back(form) or CreditsBack(form.whole("credits", 1, CREDITS_MAX)),
            refund_id=f"ref-{page.services.new_id()}"[:40],
            request=form.request,
            once=form.once(page.organisation_id),
        )
    except Exception as error:
        return _show(page, payment, form.fields, error=error)
    return redirect(page.url("/credits/billing", payment=payment, min_position=standing.position))


def _back(form: Form) -> Back | None:
    """Return what a form says is to go back; None where it says nothing."""
    if form.fields.get("attempt"):
        return AttemptBack(form.text("attempt", ID_LENGTH_MAX))
    if form.fields.get("amount"):
        amount_minor = form.amount_minor("amount")
        if amount_minor < 1:
            raise invalid("amount", "an amount above 0 is needed")
        return FeeBack(amount_minor)
    if form.fields.get("credits"):
        return CreditsBack(form.whole("credits", 1, CREDITS_MAX))
    return None


def _preview(page: Page, payment_id: str, back: Back) -> Asked:
    return page.services.payments.refund_preview(page.organisation_id, payment_id, back, request=page.asked)


def _show(
    page: Page,
    payment_id: str,
    fields: Mapping[str, str],
    asked: Asked | None = None,
    *,
    error: Exception | None = None,
) -> Response:
    payment = page.services.payments.payment(payment_id, page.organisation_id)
    outcome = Outcome() if error is None else _outcome_of(error, payment)
    unspent, fee_minor, odd = None, payment.refundable_fee_minor, _odd(payment)
    try:
        unspent = _preview(page, payment_id, CreditsBack())
    except Exception as refusal:
        nothing = faults_of(refusal)
        if not (fee_minor or odd or outcome.faults):
            outcome = nothing
    return page.render(
        "refund_payment.html",
        page.view(views.balance),
        outcome.status,
        faults=outcome.faults,
        once=fields.get(ONCE) or page.services.new_id(),
        payment_id=payment_id,
        terms=payment.terms,
        is_paid=payment.status in PAID,
        unspent=unspent,
        fee_minor=fee_minor,
        fee_text=typed(fee_minor),
        odd=odd,
        asked=asked,
        fields={kind: fields.get(kind, "") for kind in _KINDS},
        currency=None if asked is None else payment.currency_of(asked),
        words=words,
    )


def _outcome_of(error: Exception, payment: Payment) -> Outcome:
    """Return what the page shows of an error; the ledger's minor units become money."""
    outcome = faults_of(error, names=FIELD_NAMES)
    if not isinstance(error, RefundExceedsPayment):
        return outcome
    left = formats_of(payment.terms.currency, "UTC").money(payment.refundable_fee_minor)
    fault = FieldError(field="amount", message=f"{left} can still go back, tax not counted")
    return Outcome([fault], outcome.status)


def _odd(payment: Payment) -> list[PaymentFlagged]:
    """Return the attempts whose money waits to go back."""
    waiting = {key.gateway_payment_id: key for key in payment.flags if payment.gives_back(key)}
    return [payment.flags[key] for key in waiting.values()]
