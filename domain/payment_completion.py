"""What a payment brings about when it is paid: credits, a plan, or nothing but its record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from domain.aggregate import Aggregate
from domain.facts import Request
from domain.gateway import Attempt
from domain.ledger import Ledger
from domain.money import Cost
from domain.organisation import Organisation
from domain.payment import Payment
from domain.payment_facts import Flag, PaymentKind

PRO_LASTS: Final = timedelta(days=365)


def complete(
    ledger: Ledger, payment: Payment, attempt: Attempt, request: Request, *, recorded_before: bool
) -> Sequence[Aggregate]:
    """Let a payment that the attempt pays for bring about what it was for.

    `recorded_before` tells that somebody has recorded the credits by hand. Returns what is to be appended.
    """
    terms = payment.terms
    if terms.kind is PaymentKind.CUSTOM:
        payment.complete(attempt.gateway_payment_id, None, request)
        return [payment]
    organisation = ledger.organisation(terms.organisation_id)
    paid_at = max(request.at, payment.last_recorded_at)  # as its completion says, for `pro_until`
    has_pro = terms.kind is PaymentKind.PRO and not organisation.begin_pro(paid_at + PRO_LASTS, request)
    purchase = None
    if terms.credits and not recorded_before:
        purchase = _purchase(organisation, payment, attempt, request)
    payment.complete(attempt.gateway_payment_id, purchase, request)
    if terms.top_up is not None:
        organisation.switch_on_auto_top_up(
            terms.top_up, payment_id=terms.payment_id, most_minor=terms.total_minor, request=request
        )
    elif terms.charged_to is not None:
        organisation.end_top_up(request)
    if has_pro:
        payment.flag(Flag.ALREADY_PRO, attempt, request)
    if recorded_before:
        payment.flag(Flag.CREDITS_RECORDED_BEFORE, attempt, request)
    return [payment, organisation]


def pro_until(payment: Payment) -> datetime | None:
    """Return the end that a payment gave the subscription it began; None: it began none."""
    if payment.terms.kind is not PaymentKind.PRO or payment.completed_at is None:
        return None
    if any(key.flag is Flag.ALREADY_PRO for key in payment.flags):
        return None
    return payment.completed_at + PRO_LASTS


def _purchase(organisation: Organisation, payment: Payment, attempt: Attempt, request: Request) -> int:
    """Have the organisation buy the payment's credits, and return the version of that event."""
    terms = payment.terms
    assert payment.order_id is not None
    event = organisation.purchase(
        terms.credits,
        payment_id=attempt.gateway_payment_id,
        order_id=payment.order_id,
        gateway=terms.gateway,
        unit_price_millionths=terms.unit_price_millionths,
        cost=Cost(terms.credits_minor, terms.tax_minor * terms.credits_minor // terms.amount_minor),
        currency=terms.currency,
        request=request,
    )
    return event.originator_version
