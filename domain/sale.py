"""A sale: what an invoice needs to know of a payment, gathered from the payment's own facts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from domain.aggregate import Fact
from domain.payment_facts import (
    PaymentCompleted,
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundRequested,
    PaymentRequested,
)


class GivenBack(msgspec.Struct, frozen=True):
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
    given_back: tuple[GivenBack, ...] = ()


def sale_of(facts: Iterable[Fact]) -> Sale | None:
    """Return the sale that a payment's history tells of; None: nobody has paid."""
    terms: PaymentRequested | None = None
    order_id = ""
    sale: Sale | None = None
    asked: dict[str, PaymentRefundRequested] = {}
    given_back: list[GivenBack] = []
    for fact in facts:
        match fact:
            case PaymentRequested():
                terms = fact
            case PaymentOrdered():
                order_id = fact.order_id
            case PaymentCompleted() if terms is not None:
                sale = Sale(terms, order_id, fact.gateway_payment_id, fact.recorded_at)
            case PaymentRefundRequested():
                asked[fact.refund_id] = fact
            case PaymentRefunded():
                back = asked[fact.refund_id]
                given_back.append(
                    GivenBack(
                        fact.refund_id, back.credits, back.amount_minor, back.tax_minor, fact.recorded_at
                    )
                )
    return None if sale is None else msgspec.structs.replace(sale, given_back=tuple(given_back))
