"""Additions of the statement: a purchase, free credits, an admin grant, a refund, or a refunded purchase.

A refunded purchase is a negative addition: it does not change usage, and so does not change the months.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from domain.credits.events import (
    ChargeRefunded,
    CreditsGranted,
    CreditsPurchased,
    GrantKind,
    PurchaseRefunded,
    PurchaseRefundReversed,
)
from projections.credits.read_models import (
    Details,
    GrantDetails,
    PurchaseDetails,
    PurchaseRefundDetails,
    RefundDetails,
    TransactionKind,
    TransactionType,
)
from projections.credits.statement_rows import TransactionRow
from projections.engine.event_log import LogEntry

Addition = CreditsGranted | CreditsPurchased | ChargeRefunded | PurchaseRefunded | PurchaseRefundReversed

_ADDITIONS: Final = (
    CreditsGranted,
    CreditsPurchased,
    ChargeRefunded,
    PurchaseRefunded,
    PurchaseRefundReversed,
)

_encode: Final = msgspec.json.Encoder().encode


def fold_additions(entries: Sequence[LogEntry]) -> list[TransactionRow]:
    """Return a row for every addition among log entries."""
    return [
        _row(stream, version, event) for _, stream, version, event in entries if isinstance(event, _ADDITIONS)
    ]


def _row(stream: bytes, version: int, event: Addition) -> TransactionRow:
    return TransactionRow(
        stream=stream.hex(),
        kind=TransactionKind.ADDITION,
        reference=str(version),
        type=_type(event),
        credits=event.balance_delta,
        occurred_at=event.recorded_at,
        recorded_at=event.recorded_at,
        actor=event.actor,
        event_ids=[event.event_id] if isinstance(event, ChargeRefunded) else None,
        event_name=event.event_name if isinstance(event, ChargeRefunded) else None,
        first_version=version,
        last_version=version,
        details="\\x" + _encode(_details(event)).hex(),
    )


def _type(event: Addition) -> TransactionType:
    if isinstance(event, CreditsPurchased):
        return TransactionType.PURCHASE
    if isinstance(event, ChargeRefunded):
        return TransactionType.REFUND
    if isinstance(event, PurchaseRefunded | PurchaseRefundReversed):
        return TransactionType.PURCHASE_REFUND
    return TransactionType.ADMIN_GRANT if event.kind is GrantKind.ADMIN else TransactionType.FREE_CREDITS


def _details(event: Addition) -> Details:
    if isinstance(event, CreditsGranted):
        return GrantDetails(event.kind, event.reason)
    if isinstance(event, ChargeRefunded):
        return RefundDetails(event.charge, event.run_id, event.reason)
    if isinstance(event, PurchaseRefunded):
        return PurchaseRefundDetails(
            event.purchase,
            event.payment_id,
            event.refund_id,
            event.amount_minor,
            event.tax_minor,
            event.currency,
        )
    if isinstance(event, PurchaseRefundReversed):
        return PurchaseRefundDetails(event.purchase, event.payment_id, event.refund_id)
    return PurchaseDetails(
        event.gateway,
        event.payment_id,
        event.order_id,
        event.unit_price_millionths,
        event.amount_minor,
        event.tax_minor,
        event.currency,
    )
