"""The effects of a completed payment on its organisation: credits, Pro, auto top-up, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from domain.credits.ledger import Ledger
from domain.credits.organisation import Organisation
from domain.payments.auto_top_up_purchases import active_auto_top_up
from domain.payments.events import Flag, PaymentKind
from domain.payments.gateway import Attempt
from domain.payments.payment import Payment
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.money import Cost

PRO_DURATION: Final = timedelta(days=365)


class Completion(NamedTuple):
    """The aggregates that changed.

    `replaced_card_payment_id` is the payment whose card auto top-up charged until now, if this payment's card
    replaces it.
    """

    changed: Sequence[Aggregate]
    replaced_card_payment_id: str | None = None


def complete(
    ledger: Ledger, payment: Payment, attempt: Attempt, context: CommandContext, *, recorded_before: bool
) -> Completion:
    """Complete a payment with the attempt that pays for it, and apply what it bought: credits, Pro, top-ups.

    `recorded_before`: staff have already recorded these credits by hand, so none are added.
    """
    terms = payment.terms
    if terms.kind is PaymentKind.CUSTOM:
        payment.complete(attempt.gateway_payment_id, None, context)
        return Completion([payment])
    organisation = ledger.organisation(terms.organisation_id)
    paid_at = max(context.at, payment.last_recorded_at)  # the time of its completion, for `pro_until`
    had_pro = terms.kind is PaymentKind.PRO and not organisation.start_pro(paid_at + PRO_DURATION, context)
    purchase = None
    if terms.credits and not recorded_before:
        purchase = _purchase(organisation, payment, attempt, context)
    payment.complete(attempt.gateway_payment_id, purchase, context)
    replaced_card_payment_id = None
    if terms.top_up is not None:
        replaced = active_auto_top_up(organisation)
        replaced_card_payment_id = None if replaced is None else replaced.card_of
        organisation.switch_on_auto_top_up(
            terms.top_up, payment_id=terms.payment_id, amount_minor_max=terms.total_minor, context=context
        )
    elif terms.card_payment_id is not None:
        organisation.complete_top_up(context)
    if had_pro:
        payment.flag(Flag.ALREADY_PRO, attempt, context)
    if recorded_before:
        payment.flag(Flag.CREDITS_RECORDED_BEFORE, attempt, context)
    return Completion([payment, organisation], replaced_card_payment_id)


def pro_until(payment: Payment) -> datetime | None:
    """Return the end of the subscription that a payment started; None if it started none."""
    if payment.terms.kind is not PaymentKind.PRO or payment.completed_at is None:
        return None
    if any(key.flag is Flag.ALREADY_PRO for key in payment.flags):
        return None
    return payment.completed_at + PRO_DURATION


def _purchase(organisation: Organisation, payment: Payment, attempt: Attempt, context: CommandContext) -> int:
    """Record the purchase of the payment's credits, and return the version of that event."""
    terms = payment.terms
    assert payment.order_id is not None
    envelope = organisation.purchase(
        terms.credits,
        payment_id=attempt.gateway_payment_id,
        order_id=payment.order_id,
        gateway=terms.gateway,
        unit_price_millionths=terms.unit_price_millionths,
        cost=Cost(terms.credits_minor, payment.credits_tax_minor),
        currency=terms.currency,
        context=context,
    )
    return envelope.originator_version
