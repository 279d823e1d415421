"""A sale: what an invoice needs to know of a payment, gathered from the payment's own facts."""

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
    """Money of a sale that went back, and the credits that were taken for it."""

    refund_id: str
    credits: int
    amount_minor: int
    tax_minor: int
    at: datetime


class Sale(msgspec.Struct, frozen=True):
    """A completed payment: what was to be paid, by which order, and what went back since, oldest first."""

    terms: PaymentRequested
    order_id: str
    gateway_payment_id: str
    paid_at: datetime
    refunds: tuple[Refund, ...] = ()


def sale_of(facts: Iterable[DomainEvent]) -> Sale | None:
    """Return the sale that a payment's history tells of; None: nobody has paid."""
    terms: PaymentRequested | None = None
    order_id = ""
    sale: Sale | None = None
    asked: dict[str, PaymentRefundRequested] = {}
    refunds: list[Refund] = []
    for event in facts:
        match event:
            case PaymentRequested():
                terms = event
            case PaymentOrdered():
                order_id = event.order_id
            case PaymentCompleted() if terms is not None:
                sale = Sale(terms, order_id, event.gateway_payment_id, event.recorded_at)
            case PaymentRefundRequested():
                asked[event.refund_id] = event
            case PaymentRefunded():
                back = asked[event.refund_id]
                refunds.append(
                    Refund(
                        event.refund_id, back.credits, back.amount_minor, back.tax_minor, event.recorded_at
                    )
                )
    return None if sale is None else msgspec.structs.replace(sale, refunds=tuple(refunds))
