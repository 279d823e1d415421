"""A sale: what an invoice needs from a payment, read from the payment's events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from domain.payments.events import (
    PaymentCompleted,
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundRequested,
    PaymentRequested,
)
from domain.shared.aggregate import DomainEvent


class Refund(msgspec.Struct, frozen=True):
    """A refund of a sale, and the credits that were taken for it. The amount is without tax."""

    refund_id: str
    credits: int
    amount_minor: int
    tax_minor: int
    at: datetime


class Sale(msgspec.Struct, frozen=True):
    """A completed payment, and its refunds, oldest first."""

    terms: PaymentRequested
    order_id: str
    gateway_payment_id: str
    paid_at: datetime
    refunds: tuple[Refund, ...] = ()


def sale_of(events: Iterable[DomainEvent]) -> Sale | None:
    """Return the sale of a payment with these events; None if it is not paid."""
    terms: PaymentRequested | None = None
    order_id = ""
    sale: Sale | None = None
    requested: dict[str, PaymentRefundRequested] = {}
    refunds: list[Refund] = []
    for event in events:
        match event:
            case PaymentRequested():
                terms = event
            case PaymentOrdered():
                order_id = event.order_id
            case PaymentCompleted() if terms is not None:
                sale = Sale(terms, order_id, event.gateway_payment_id, event.recorded_at)
            case PaymentRefundRequested():
                requested[event.refund_id] = event
            case PaymentRefunded():
                request = requested[event.refund_id]
                refunds.append(
                    Refund(
                        event.refund_id,
                        request.credits,
                        request.amount_minor,
                        request.tax_minor,
                        event.recorded_at,
                    )
                )
    return None if sale is None else msgspec.structs.replace(sale, refunds=tuple(refunds))
