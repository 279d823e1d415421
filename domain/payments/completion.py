"""What a payment brings about when it is paid: credits, a plan, or nothing but its record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from domain.credits.ledger import Ledger
from domain.credits.organisation import Organisation
from domain.payments.events import Flag, PaymentKind
from domain.payments.gateway import Attempt
from domain.payments.payment import Payment
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.money import Cost

PRO_DURATION: Final = timedelta(days=365)


def complete(
    ledger: Ledger, payment: Payment, attempt: Attempt, context: CommandContext, *, recorded_before: bool
) -> Sequence[Aggregate]:
    """Let a payment that the attempt pays for bring about what it was for.

    `recorded_before` tells that somebody has recorded the credits by hand. Returns what is to be appended.
    """
    terms = payment.terms
    if terms.kind is PaymentKind.CUSTOM:
        payment.complete(attempt.gateway_payment_id, None, context)
        return [payment]
    organisation = ledger.organisation(terms.organisation_id)
    paid_at = max(context.at, payment.last_recorded_at)  # as its completion says, for `pro_until`
    has_pro = terms.kind is PaymentKind.PRO and not organisation.start_pro(paid_at + PRO_DURATION, context)
    purchase = None
    if terms.credits and not recorded_before:
        purchase = _purchase(organisation, payment, attempt, context)
    payment.complete(attempt.gateway_payment_id, purchase, context)
    if terms.top_up is not None:
        organisation.switch_on_auto_top_up(
            terms.top_up, payment_id=terms.payment_id, amount_minor_max=terms.total_minor, context=context
        )
    elif terms.card_payment_id is not None:
        organisation.complete_top_up(context)
    if has_pro:
        payment.flag(Flag.ALREADY_PRO, attempt, context)
    if recorded_before:
        payment.flag(Flag.CREDITS_RECORDED_BEFORE, attempt, context)
    return [payment, organisation]


def pro_until(payment: Payment) -> datetime | None:
    """Return the end that a payment gave the subscription it began; None: it began none."""
    if payment.terms.kind is not PaymentKind.PRO or payment.completed_at is None:
        return None
    if any(key.flag is Flag.ALREADY_PRO for key in payment.flags):
        return None
    return payment.completed_at + PRO_DURATION


def _purchase(organisation: Organisation, payment: Payment, attempt: Attempt, context: CommandContext) -> int:
    """Have the organisation buy the payment's credits, and return the version of that event."""
    terms = payment.terms
    assert payment.order_id is not None
    envelope = organisation.purchase(
        terms.credits,
        payment_id=attempt.gateway_payment_id,
        order_id=payment.order_id,
        gateway=terms.gateway,
        unit_price_millionths=terms.unit_price_millionths,
        cost=Cost(terms.credits_minor, terms.tax_minor * terms.credits_minor // terms.amount_minor),
        currency=terms.currency,
        context=context,
    )
    return envelope.originator_version
