"""Payments and gateway attempts for tests, with defaults for everything a test does not specify."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.payments.events import PaymentKind
from domain.payments.gateway import Attempt, AttemptStatus
from domain.payments.payment import Payment
from domain.payments.terms import PaymentTerms
from domain.shared.money import Currency
from tests.unit.credits.builders import request

CREDITS = PaymentTerms(
    kind=PaymentKind.CREDITS,
    credits=1_000,
    unit_price_millionths=1_500_000,
    credits_minor=150_000,
    fee_minor=0,
    tax_minor=27_000,
    currency=Currency.INR,
    price_version="published-1",
)
PRO = msgspec.structs.replace(CREDITS, kind=PaymentKind.PRO, fee_minor=1_000_000, tax_minor=207_000)
CUSTOM = msgspec.structs.replace(
    CREDITS, kind=PaymentKind.CUSTOM, credits=0, credits_minor=0, fee_minor=500_000, tax_minor=90_000
)


def requested(terms: PaymentTerms = CREDITS) -> Payment:
    return Payment.request(
        "payment-1", "org-4711", terms, gateway="razorpay", quote_id="quote-1", context=request()
    )


def ordered(terms: PaymentTerms = CREDITS) -> Payment:
    payment = requested(terms)
    payment.record_order("order_1", request())
    return payment


def completed(terms: PaymentTerms = CREDITS, *, purchase: int | None = 3) -> Payment:
    payment = ordered(terms)
    payment.complete("pay_1", purchase, request())
    return payment


def attempt(status: AttemptStatus = AttemptStatus.CAPTURED, **fields: Any) -> Attempt:
    defaults: dict[str, Any] = {
        "gateway_payment_id": "pay_1",
        "order_id": "order_1",
        "amount_minor": CREDITS.total_minor,
        "currency": "INR",
    }
    return Attempt(status=status, **(defaults | fields))


def happened(payment: Payment) -> list[str]:
    """Return the names of a payment's new events since the last call."""
    return [type(envelope.event).__name__.removeprefix("Payment") for envelope in payment.collect_events()]
