"""The public forms of the events of payments and invoices."""

from __future__ import annotations

from typing import Final

from consumers.publishing.public_mapping import Data, PublicMapping, PublicMappings
from domain.invoicing import events as invoice_events
from domain.payments import events as payment_events


def _payment_requested(event: payment_events.PaymentRequested) -> Data:
    return {
        "payment_id": event.payment_id,
        "kind": event.kind.value,
        "gateway": event.gateway,
        "credits": event.credits,
        "unit_price_millionths": event.unit_price_millionths,
        "credits_minor": event.credits_minor,
        "fee_minor": event.fee_minor,
        "amount_minor": event.amount_minor,
        "tax_minor": event.tax_minor,
        "currency": event.currency.value,
        "price_version": event.price_version,
        "quote_id": event.quote_id,
        **({} if event.card_payment_id is None else {"charged_to": event.card_payment_id}),
    }


def _payment_ordered(event: payment_events.PaymentOrdered) -> Data:
    return {"payment_id": event.payment_id, "gateway": event.gateway, "order_id": event.order_id}


def _payment_completed(event: payment_events.PaymentCompleted) -> Data:
    return {
        "payment_id": event.payment_id,
        "gateway_payment_id": event.gateway_payment_id,
        "purchase_version": event.purchase,
    }


def _payment_ended(event: payment_events.PaymentFailed | payment_events.PaymentAbandoned) -> Data:
    return {"payment_id": event.payment_id, "reason": event.reason}


def _payment_flagged(event: payment_events.PaymentFlagged) -> Data:
    return {
        "payment_id": event.payment_id,
        "flag": event.flag.value,
        "gateway_payment_id": event.gateway_payment_id,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
    }


def _payment_refund_requested(event: payment_events.PaymentRefundRequested) -> Data:
    return {
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "credits": event.credits,
        "amount_minor": event.amount_minor,
        "tax_minor": event.tax_minor,
    }


def _payment_refunded(event: payment_events.PaymentRefunded) -> Data:
    return {
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "gateway_refund_id": event.gateway_refund_id,
        "credits": event.credits,
        "total_minor": event.total_minor,
    }


def _payment_refund_failed(
    event: payment_events.PaymentRefundFailed | payment_events.AttemptRefundFailed,
) -> Data:
    return {"payment_id": event.payment_id, "refund_id": event.refund_id, "reason": event.reason}


def _payment_flag_settled(event: payment_events.PaymentFlagSettled) -> Data:
    return {
        "payment_id": event.payment_id,
        "flag": event.flag.value,
        "gateway_payment_id": event.gateway_payment_id,
        "amount_minor": event.amount_minor,
        "refund_id": event.refund_id,
    }


def _attempt_refund_requested(event: payment_events.AttemptRefundRequested) -> Data:
    return {
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "gateway_payment_id": event.gateway_payment_id,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
    }


def _attempt_refunded(event: payment_events.AttemptRefunded) -> Data:
    return {
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "gateway_refund_id": event.gateway_refund_id,
        "gateway_payment_id": event.gateway_payment_id,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
    }


def _invoice_issued(event: invoice_events.InvoiceIssued | invoice_events.CreditNoteIssued) -> Data:
    return {
        "number": event.number,
        "payment_id": event.payment_id,
        "amount_minor": event.amount_minor,
        "tax_minor": event.tax_minor,
        "currency": event.currency.value,
        "digest": event.digest,
    }


def _credit_note_issued(event: invoice_events.CreditNoteIssued) -> Data:
    return {**_invoice_issued(event), "refund_id": event.refund_id, "invoice_number": event.invoice_number}


PAYMENT_MAPPINGS: Final[PublicMappings] = {
    payment_events.PaymentRequested: PublicMapping("credit_ledger.payment_requested.v1", _payment_requested),
    payment_events.PaymentOrdered: PublicMapping("credit_ledger.payment_ordered.v1", _payment_ordered),
    payment_events.PaymentCompleted: PublicMapping("credit_ledger.payment_completed.v1", _payment_completed),
    payment_events.PaymentFailed: PublicMapping("credit_ledger.payment_failed.v1", _payment_ended),
    payment_events.PaymentAbandoned: PublicMapping("credit_ledger.payment_abandoned.v1", _payment_ended),
    payment_events.PaymentFlagged: PublicMapping("credit_ledger.payment_flagged.v1", _payment_flagged),
    payment_events.PaymentRefundRequested: PublicMapping(
        "credit_ledger.payment_refund_requested.v1", _payment_refund_requested
    ),
    payment_events.PaymentRefunded: PublicMapping("credit_ledger.payment_refunded.v1", _payment_refunded),
    payment_events.PaymentRefundFailed: PublicMapping(
        "credit_ledger.payment_refund_failed.v1", _payment_refund_failed
    ),
    payment_events.PaymentFlagSettled: PublicMapping(
        "credit_ledger.payment_flag_settled.v1", _payment_flag_settled
    ),
    payment_events.AttemptRefundRequested: PublicMapping(
        "credit_ledger.payment_attempt_refund_requested.v1", _attempt_refund_requested
    ),
    payment_events.AttemptRefunded: PublicMapping(
        "credit_ledger.payment_attempt_refunded.v1", _attempt_refunded
    ),
    payment_events.AttemptRefundFailed: PublicMapping(
        "credit_ledger.payment_attempt_refund_failed.v1", _payment_refund_failed
    ),
    invoice_events.InvoiceIssued: PublicMapping("credit_ledger.invoice_issued.v1", _invoice_issued),
    invoice_events.CreditNoteIssued: PublicMapping(
        "credit_ledger.credit_note_issued.v1", _credit_note_issued
    ),
}
