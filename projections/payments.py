"""The projection `payments`: one row per payment, as its organisation and staff see it.

It also knows what papers a payment has, and whether billing details are on file: so what lacks a document and
can have it is found without looking at all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import psycopg

from domain.audit_facts import BillingDetailsChanged
from domain.errors import InvariantBroken
from domain.identity import stream_id
from domain.invoice_facts import CreditNoteIssued, InvoiceIssued
from domain.money import Currency
from domain.payment_facts import (
    Asked,
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
)
from projections.log import Entry
from projections.rows import write_rows

Connection = psycopg.Connection[Any]

_BEGIN: Final = "INSERT INTO payments SELECT * FROM json_populate_recordset(NULL::payments, %s)"

_CHANGE: Final = """
    UPDATE payments AS held SET
        status = coalesce(change.status, held.status),
        order_id = coalesce(change.order_id, held.order_id),
        gateway_payment_id = coalesce(change.gateway_payment_id, held.gateway_payment_id),
        refunded_credits = held.refunded_credits + change.refunded_credits,
        refunded_minor = held.refunded_minor + change.refunded_minor,
        open_refunds = held.open_refunds + change.open_refunds,
        reason = CASE WHEN change.status IS NULL THEN held.reason ELSE change.reason END,
        completed_at = coalesce(change.completed_at, held.completed_at),
        version = coalesce(change.version, held.version),
        "position" = coalesce(change."position", held."position"),
        invoiced = held.invoiced OR change.invoiced,
        credited_minor = held.credited_minor + change.credited_minor
    FROM json_populate_recordset(NULL::payments, %s) AS change
    WHERE held.stream = change.stream AND held.payment_id = change.payment_id
"""


_BILLING: Final = """
    INSERT INTO billing SELECT * FROM json_populate_recordset(NULL::billing, %s)
    ON CONFLICT (stream) DO UPDATE SET on_file = excluded.on_file
"""
_BILLABLE: Final = """
    UPDATE payments SET billable = on_file FROM billing
    WHERE billing.stream = payments.stream AND billable <> on_file
"""
_BEGUN_BILLABLE: Final = f"{_BILLABLE} AND payments.payment_id = ANY(%s)"
_ALL_BILLABLE: Final = f"{_BILLABLE} AND payments.stream = ANY(%s::uuid[])"


class BegunRow(msgspec.Struct, frozen=True):
    """A row of `payments` as it is first written."""

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
    """What a batch changes of one payment; None leaves it as it is."""

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
        self, begun: Sequence[BegunRow], changes: Sequence[PaymentChange], billing: Sequence[BillingRow]
    ) -> None:
        self._begun = begun
        self._changes = changes
        self._billing = billing

    def write(self, connection: Connection) -> None:
        """Insert payments that began, then change all that are touched.

        Raises:
            InvariantBroken: something happened to a payment that never began.
        """
        write_rows(connection, _BEGIN, self._begun)
        if write_rows(connection, _CHANGE, self._changes) != len(self._changes):
            raise InvariantBroken("a payment changed that never began")
        write_rows(connection, _BILLING, self._billing)
        if self._billing:
            connection.execute(_ALL_BILLABLE, [[row.stream for row in self._billing]])
        if self._begun:
            connection.execute(_BEGUN_BILLABLE, [[row.payment_id for row in self._begun]])


class PaymentsProjection:
    """Folds the events of payments and of their papers, and passes over all others."""

    name = "payments"
    tables = ("payments", "billing")

    def fold(self, entries: Sequence[Entry]) -> PaymentChanges:
        """Return what entries change: nothing, for nearly all of them."""
        begun: list[BegunRow] = []
        changes: dict[str, PaymentChange] = {}
        billing: dict[bytes, bool] = {}
        for position, stream, version, fact in entries:
            if isinstance(fact, PaymentRequested):
                begun.append(_begun_row(fact, version, position))
            elif isinstance(fact, BillingDetailsChanged):
                billing[stream] = fact.digest is not None
            elif fold_paper := _PAPERS.get(type(fact)):
                fold_paper(_change_of(changes, fact), fact)
            elif fold := _FOLDS.get(type(fact)):
                change = _change_of(changes, fact)
                change.version, change.position = version, position
                fold(change, fact)
        rows = [BillingRow(stream.hex(), on_file) for stream, on_file in billing.items()]
        return PaymentChanges(begun, list(changes.values()), rows)


def _change_of(changes: dict[str, PaymentChange], fact: Any) -> PaymentChange:
    change = changes.get(fact.payment_id)
    if change is None:
        stream = stream_id(fact.organisation_id).hex
        change = changes[fact.payment_id] = PaymentChange(stream, fact.payment_id)
    return change


def _begun_row(fact: PaymentRequested, version: int, position: int) -> BegunRow:
    return BegunRow(
        stream_id(fact.organisation_id).hex,
        fact.payment_id,
        fact.kind,
        fact.gateway,
        fact.credits,
        fact.unit_price_millionths,
        fact.credits_minor,
        fact.fee_minor,
        fact.amount_minor,
        fact.tax_minor,
        fact.currency,
        fact.price_version,
        fact.actor,
        fact.recorded_at,
        version,
        position,
    )


def _ordered(change: PaymentChange, fact: PaymentOrdered) -> None:
    change.status = PaymentStatus.PENDING
    change.order_id = fact.order_id


def _completed(change: PaymentChange, fact: PaymentCompleted) -> None:
    change.status, change.reason = PaymentStatus.COMPLETED, None
    change.gateway_payment_id = fact.gateway_payment_id
    change.completed_at = fact.recorded_at


def _failed(change: PaymentChange, fact: PaymentFailed) -> None:
    change.status, change.reason = PaymentStatus.FAILED, fact.reason


def _abandoned(change: PaymentChange, fact: PaymentAbandoned) -> None:
    change.status, change.reason = PaymentStatus.ABANDONED, fact.reason


def _touched(change: PaymentChange, fact: PaymentFlagged | PaymentFlagSettled) -> None:
    """Flags have rows of their own; the payment's version moves."""


def _refund_requested(change: PaymentChange, _: Asked) -> None:
    change.open_refunds += 1


def _refunded(change: PaymentChange, fact: PaymentRefunded) -> None:
    change.status = PaymentStatus.REFUNDED
    change.open_refunds -= 1
    change.refunded_credits += fact.credits
    change.refunded_minor += fact.total_minor


def _refund_closed(
    change: PaymentChange, _: PaymentRefundFailed | AttemptRefunded | AttemptRefundFailed
) -> None:
    change.open_refunds -= 1


def _invoice_issued(change: PaymentChange, _: InvoiceIssued) -> None:
    change.invoiced = True


def _credit_note_issued(change: PaymentChange, fact: CreditNoteIssued) -> None:
    change.credited_minor += fact.amount_minor + fact.tax_minor


_PAPERS: Final[Mapping[type[Any], Callable[[PaymentChange, Any], None]]] = {
    InvoiceIssued: _invoice_issued,
    CreditNoteIssued: _credit_note_issued,
}
_FOLDS: Final[Mapping[type[Any], Callable[[PaymentChange, Any], None]]] = {
    PaymentOrdered: _ordered,
    PaymentCompleted: _completed,
    PaymentFailed: _failed,
    PaymentAbandoned: _abandoned,
    PaymentFlagged: _touched,
    PaymentFlagSettled: _touched,
    PaymentRefundRequested: _refund_requested,
    PaymentRefunded: _refunded,
    PaymentRefundFailed: _refund_closed,
    AttemptRefundRequested: _refund_requested,
    AttemptRefunded: _refund_closed,
    AttemptRefundFailed: _refund_closed,
}
