"""Additions as people see them: a purchase, free credits, an admin grant, a refund, or a refunded purchase.

A refunded purchase is an addition below zero: usage, and with it the months, are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from domain.facts import (
    ChargeRefunded,
    CreditsGranted,
    CreditsPurchased,
    GrantKind,
    PurchaseRefunded,
    PurchaseRefundReversed,
)
from projections.log import Entry
from projections.results import (
    Details,
    GrantDetails,
    PurchaseDetails,
    PurchaseRefundDetails,
    RefundDetails,
    TransactionKind,
    TransactionType,
)
from projections.statement_rows import TransactionRow

Addition = CreditsGranted | CreditsPurchased | ChargeRefunded | PurchaseRefunded | PurchaseRefundReversed

_ADDITIONS: Final = (
    CreditsGranted,
    CreditsPurchased,
    ChargeRefunded,
    PurchaseRefunded,
    PurchaseRefundReversed,
)

_encode: Final = msgspec.json.Encoder().encode


def fold_additions(entries: Sequence[Entry]) -> list[TransactionRow]:
    """Return a row for every addition among log entries."""
    return [
        _row(stream, version, fact) for _, stream, version, fact in entries if isinstance(fact, _ADDITIONS)
    ]


def _row(stream: bytes, version: int, fact: Addition) -> TransactionRow:
    return TransactionRow(
        stream=stream.hex(),
        kind=TransactionKind.ADDITION,
        reference=str(version),
        type=_type(fact),
        credits=fact.balance_delta,
        occurred_at=fact.recorded_at,
        recorded_at=fact.recorded_at,
        actor=fact.actor,
        event_ids=[fact.event_id] if isinstance(fact, ChargeRefunded) else None,
        event_name=fact.event_name if isinstance(fact, ChargeRefunded) else None,
        first_version=version,
        last_version=version,
        details="\\x" + _encode(_details(fact)).hex(),
    )


def _type(fact: Addition) -> TransactionType:
    if isinstance(fact, CreditsPurchased):
        return TransactionType.PURCHASE
    if isinstance(fact, ChargeRefunded):
        return TransactionType.REFUND
    if isinstance(fact, PurchaseRefunded | PurchaseRefundReversed):
        return TransactionType.PURCHASE_REFUND
    return TransactionType.ADMIN_GRANT if fact.kind is GrantKind.ADMIN else TransactionType.FREE_CREDITS


def _details(fact: Addition) -> Details:
    if isinstance(fact, CreditsGranted):
        return GrantDetails(fact.kind, fact.reason)
    if isinstance(fact, ChargeRefunded):
        return RefundDetails(fact.charge, fact.run_id, fact.reason)
    if isinstance(fact, PurchaseRefunded):
        return PurchaseRefundDetails(
            fact.purchase,
            fact.payment_id,
            fact.refund_id,
            fact.amount_minor,
            fact.tax_minor,
            fact.currency,
        )
    if isinstance(fact, PurchaseRefundReversed):
        return PurchaseRefundDetails(fact.purchase, fact.payment_id, fact.refund_id)
    return PurchaseDetails(
        fact.gateway,
        fact.payment_id,
        fact.order_id,
        fact.unit_price_millionths,
        fact.amount_minor,
        fact.tax_minor,
        fact.currency,
    )
