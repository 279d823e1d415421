"""The projection `payments`: one row per payment.

It also stores which documents a payment has, and whether its organisation has billing details. So a
payment that needs a document is found without a scan of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from domain.credits.audit_events import BillingDetailsChanged
from domain.invoicing.events import CreditNoteIssued, InvoiceIssued
from domain.payments.events import (
    AttemptRefunded,
    AttemptRefundFailed,
    AttemptRefundRequested,
    PaymentAbandoned,
    PaymentCompleted,
    PaymentFailed,
    PaymentFlagged,
    PaymentFlagSettled,
    PaymentKind,
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentRefundRequested,
    PaymentRequested,
    PaymentStatus,
    RefundRequested,
)
from domain.shared.errors import InvariantViolation
from domain.shared.money import Currency
from domain.shared.stream_keys import stream_id
from projections.connection import Connection
from projections.engine.event_log import LogEntry
from projections.engine.upserts import write_rows

_INSERT: Final = "INSERT INTO payments SELECT * FROM json_populate_recordset(NULL::payments, %s)"

_CHANGE: Final = """
    UPDATE payments AS existing SET
        status = coalesce(change.status, existing.status),
        order_id = coalesce(change.order_id, existing.order_id),
        gateway_payment_id = coalesce(change.gateway_payment_id, existing.gateway_payment_id),
        refunded_credits = existing.refunded_credits + change.refunded_credits,
        refunded_minor = existing.refunded_minor + change.refunded_minor,
        open_refunds = existing.open_refunds + change.open_refunds,
        reason = CASE WHEN change.status IS NULL THEN existing.reason ELSE change.reason END,
        completed_at = coalesce(change.completed_at, existing.completed_at),
        version = coalesce(change.version, existing.version),
        "position" = coalesce(change."position", existing."position"),
        invoiced = existing.invoiced OR change.invoiced,
        credited_minor = existing.credited_minor + change.credited_minor
    FROM json_populate_recordset(NULL::payments, %s) AS change
    WHERE existing.stream = change.stream AND existing.payment_id = change.payment_id
"""


_BILLING: Final = """
    INSERT INTO billing SELECT * FROM json_populate_recordset(NULL::billing, %s)
    ON CONFLICT (stream) DO UPDATE SET on_file = excluded.on_file
"""
_BILLABLE: Final = """
    UPDATE payments SET billable = on_file FROM billing
    WHERE billing.stream = payments.stream AND billable <> on_file
"""
_MARK_NEW_BILLABLE: Final = f"{_BILLABLE} AND payments.payment_id = ANY(%s)"
_MARK_ORGANISATION_BILLABLE: Final = f"{_BILLABLE} AND payments.stream = ANY(%s::uuid[])"


class NewPaymentRow(msgspec.Struct, frozen=True):
    """A new row of `payments`."""

    stream: str
    payment_id: str
    kind: PaymentKind
    gateway: str
    credits: int
    unit_price_millionths: int
    credits_minor: int
    fee_minor: int
    amount_minor: int
    tax_minor: int
    currency: Currency
    price_version: str
    requested_by: str | None
    created_at: datetime
    version: int
    position: int
    status: PaymentStatus = PaymentStatus.CREATED
    refunded_credits: int = 0
    refunded_minor: int = 0
    open_refunds: int = 0
    invoiced: bool = False
    credited_minor: int = 0
    billable: bool = False


class BillingRow(msgspec.Struct, frozen=True):
    """A row of `billing`: whether an organisation has billing details on file."""

    stream: str
    on_file: bool


class PaymentChange(msgspec.Struct):
    """What a batch changes in the row of one payment. None: the column does not change."""

    stream: str
    payment_id: str
    version: int | None = None
    position: int | None = None
    status: PaymentStatus | None = None
    order_id: str | None = None
    gateway_payment_id: str | None = None
    refunded_credits: int = 0
    refunded_minor: int = 0
    open_refunds: int = 0
    reason: str | None = None
    completed_at: datetime | None = None
    invoiced: bool = False
    credited_minor: int = 0


class PaymentChanges:
    """What a batch changes in `payments` and `billing`."""

    def __init__(
        self,
        requested: Sequence[NewPaymentRow],
        changes: Sequence[PaymentChange],
        billing: Sequence[BillingRow],
    ) -> None:
        self._requested = requested
        self._changes = changes
        self._billing = billing

    def write(self, connection: Connection) -> None:
        """Insert payments that were requested, then update all changed ones.

        Raises:
            InvariantViolation: a payment changed but was never requested.
        """
        write_rows(connection, _INSERT, self._requested)
        if write_rows(connection, _CHANGE, self._changes) != len(self._changes):
            raise InvariantViolation("a payment changed but was never requested")
        write_rows(connection, _BILLING, self._billing)
        if self._billing:
            connection.execute(_MARK_ORGANISATION_BILLABLE, [[row.stream for row in self._billing]])
        if self._requested:
            connection.execute(_MARK_NEW_BILLABLE, [[row.payment_id for row in self._requested]])


class PaymentsProjection:
    """Folds the events of payments and of their documents, and skips all others."""

    name = "payments"
    tables = ("payments", "billing")

    def fold(self, entries: Sequence[LogEntry]) -> PaymentChanges:
        """Return the changes of log entries. Nearly all entries change nothing."""
        requested: list[NewPaymentRow] = []
        changes: dict[str, PaymentChange] = {}
        billing: dict[bytes, bool] = {}
        for position, stream, version, event in entries:
            if isinstance(event, PaymentRequested):
                requested.append(_new_payment_row(event, version, position))
            elif isinstance(event, BillingDetailsChanged):
                billing[stream] = event.digest is not None
            elif fold_document := _DOCUMENT_FOLDS.get(type(event)):
                fold_document(_change_of(changes, event), event)
            elif fold := _FOLDS.get(type(event)):
                change = _change_of(changes, event)
                change.version, change.position = version, position
                fold(change, event)
        rows = [BillingRow(stream.hex(), on_file) for stream, on_file in billing.items()]
        return PaymentChanges(requested, list(changes.values()), rows)


def _change_of(changes: dict[str, PaymentChange], event: Any) -> PaymentChange:
    change = changes.get(event.payment_id)
    if change is None:
        stream = stream_id(event.organisation_id).hex
        change = changes[event.payment_id] = PaymentChange(stream, event.payment_id)
    return change


def _new_payment_row(event: PaymentRequested, version: int, position: int) -> NewPaymentRow:
    return NewPaymentRow(
        stream_id(event.organisation_id).hex,
        event.payment_id,
        event.kind,
        event.gateway,
        event.credits,
        event.unit_price_millionths,
        event.credits_minor,
        event.fee_minor,
        event.amount_minor,
        event.tax_minor,
        event.currency,
        event.price_version,
        event.actor,
        event.recorded_at,
        version,
        position,
    )


def _ordered(change: PaymentChange, event: PaymentOrdered) -> None:
    change.status = PaymentStatus.PENDING
    change.order_id = event.order_id


def _completed(change: PaymentChange, event: PaymentCompleted) -> None:
    change.status, change.reason = PaymentStatus.COMPLETED, None
    change.gateway_payment_id = event.gateway_payment_id
    change.completed_at = event.recorded_at


def _failed(change: PaymentChange, event: PaymentFailed) -> None:
    change.status, change.reason = PaymentStatus.FAILED, event.reason


def _abandoned(change: PaymentChange, event: PaymentAbandoned) -> None:
    change.status, change.reason = PaymentStatus.ABANDONED, event.reason


def _flag_changed(change: PaymentChange, event: PaymentFlagged | PaymentFlagSettled) -> None:
    """Flags have rows of their own; only the payment's version changes."""


def _refund_requested(change: PaymentChange, _: RefundRequested) -> None:
    change.open_refunds += 1


def _refunded(change: PaymentChange, event: PaymentRefunded) -> None:
    change.status = PaymentStatus.REFUNDED
    change.open_refunds -= 1
    change.refunded_credits += event.credits
    change.refunded_minor += event.total_minor


def _refund_closed(
    change: PaymentChange, _: PaymentRefundFailed | AttemptRefunded | AttemptRefundFailed
) -> None:
    change.open_refunds -= 1


def _invoice_issued(change: PaymentChange, _: InvoiceIssued) -> None:
    change.invoiced = True


def _credit_note_issued(change: PaymentChange, event: CreditNoteIssued) -> None:
    change.credited_minor += event.amount_minor + event.tax_minor


_DOCUMENT_FOLDS: Final[Mapping[type[Any], Callable[[PaymentChange, Any], None]]] = {
    InvoiceIssued: _invoice_issued,
    CreditNoteIssued: _credit_note_issued,
}
_FOLDS: Final[Mapping[type[Any], Callable[[PaymentChange, Any], None]]] = {
    PaymentOrdered: _ordered,
    PaymentCompleted: _completed,
    PaymentFailed: _failed,
    PaymentAbandoned: _abandoned,
    PaymentFlagged: _flag_changed,
    PaymentFlagSettled: _flag_changed,
    PaymentRefundRequested: _refund_requested,
    PaymentRefunded: _refunded,
    PaymentRefundFailed: _refund_closed,
    AttemptRefundRequested: _refund_requested,
    AttemptRefunded: _refund_closed,
    AttemptRefundFailed: _refund_closed,
}
