"""Replays payments through their aggregate, and compares their rows and purchases with the result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg.rows import tuple_row

from domain.credits.events import CreditsPurchased
from domain.event_catalogue import PAYMENT_EVENT_TYPES, EventCodec
from domain.payments.events import PaymentRefundRequested
from domain.payments.payment import Payment, evolve
from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import LedgerError
from domain.shared.stream_keys import payment_stream, stream_id
from projections.audit.findings import Finding
from projections.audit.row_stream import in_batches, stream_rows
from projections.connection import Connection

_EVENTS: Final = """
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE topic = ANY(%s) AND notification_id <= %s ORDER BY originator_id, originator_version
"""
_EVENTS_OF_FLAGGED: Final = """
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE topic = ANY(%s) AND notification_id <= %s
        AND originator_id IN (SELECT originator_id FROM ledger.events WHERE topic = 'payment_flagged.v1')
    ORDER BY originator_id, originator_version
"""
_ROWS: Final = """
    SELECT payment_id, status, order_id, gateway_payment_id, amount_minor, tax_minor, refunded_credits,
        refunded_minor, open_refunds, version
    FROM projections.payments WHERE payment_id = ANY(%s)
"""
_FLAG_ROWS: Final = """
    SELECT payment_id, flag, gateway_payment_id, amount_minor, settled_at IS NULL
    FROM projections.payment_flags
"""
_PURCHASES: Final = """
    SELECT originator_id, originator_version, topic, state
    FROM unnest(%s::uuid[], %s::bigint[]) AS wanted (originator_id, originator_version)
    JOIN ledger.events USING (originator_id, originator_version)
"""
_ALL_IDS: Final = "SELECT payment_id FROM projections.payments"
_FIRST_EVENTS: Final = """
    SELECT originator_id FROM ledger.events
    WHERE originator_id = ANY(%s) AND originator_version = 1 AND notification_id <= %s
"""
_PAYMENT_BATCH_SIZE: Final = 1_000
_ERRORS: Final = (LedgerError, AttributeError, KeyError, msgspec.DecodeError)

_codec: Final = EventCodec()


def check_payments(connection: Connection, position: int) -> Iterator[Finding]:
    """Return payment rows that differ from their histories, and completed payments without credits.

    Takes a connection in a transaction. Few payments are in memory at a time.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    for batch in in_batches(_replayed(connection, _EVENTS, position), _PAYMENT_BATCH_SIZE):
        payments = [each for each in batch if isinstance(each, Payment)]
        yield from (each for each in batch if isinstance(each, Finding))
        ids = [payment.terms.payment_id for payment in payments]
        rows = {name: tuple(row) for name, *row in _fetch(connection, _ROWS, [ids])}
        for payment in payments:
            payment_id = payment.terms.payment_id
            expected, row = _row_of(payment), rows.get(payment_id)
            if row != expected:
                yield Finding("payment", _owner(payment), f"{payment_id}: {row}, log: {expected}")
        yield from _check_purchases(connection, payments)
    yield from _orphan_rows(connection, position)


def _orphan_rows(connection: Connection, position: int) -> Iterator[Finding]:
    ids = (payment_id for (payment_id,) in stream_rows(connection, "payment_ids", _ALL_IDS))
    for batch in in_batches(ids, _PAYMENT_BATCH_SIZE):
        streams = {payment_stream(payment_id): payment_id for payment_id in batch}
        started = {stream for (stream,) in _fetch(connection, _FIRST_EVENTS, [list(streams), position])}
        for stream, payment_id in streams.items():
            if stream not in started:
                yield Finding("payment", None, f"{payment_id}: a row of a payment that the log does not have")


def check_flags(connection: Connection, position: int) -> Iterator[Finding]:
    """Return flag rows that differ from the histories of their payments.

    Takes a connection in a transaction.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    rows = {(payment_id, *key): is_open for payment_id, *key, is_open in _fetch(connection, _FLAG_ROWS)}
    for payment in _replayed(connection, _EVENTS_OF_FLAGGED, position):
        if isinstance(payment, Finding):
            continue  # `check_payments` has reported it
        payment_id, owner = payment.terms.payment_id, _owner(payment)
        for key in payment.flags:
            expected, found = key in payment.open_flags, rows.pop((payment_id, *key), None)
            if found is not expected:
                yield Finding("flag", owner, f"{payment_id}, {key}: open {found}, log: {expected}")
    for unknown in rows:
        yield Finding("flag", None, f"{unknown}: a row of a flag that the log does not have")


def _replayed(connection: Connection, query: str, position: int) -> Iterator[Payment | Finding]:
    """Yield the payments whose events a query finds, or a finding if one cannot be replayed."""
    events = stream_rows(connection, "payment_events", query, [list(PAYMENT_EVENT_TYPES), position])
    for stream, history in groupby(events, key=itemgetter(0)):
        payment: Payment | None = None
        try:
            for _, version, topic, state in history:
                payment = evolve(payment, EventEnvelope(stream, version, _codec.decode(topic, state)))
            assert payment is not None
            payment.check_invariants()
        except _ERRORS as error:
            yield Finding("payment", stream, f"it cannot be replayed: {error or type(error).__name__}")
        else:
            yield payment


def _row_of(payment: Payment) -> tuple[Any, ...]:
    requested_refund = (refund.requested_refund for refund in payment.refunds.values() if refund.succeeded)
    back = [each for each in requested_refund if isinstance(each, PaymentRefundRequested)]
    return (
        payment.status.value,
        payment.order_id,
        payment.gateway_payment_id,
        payment.terms.amount_minor,
        payment.terms.tax_minor,
        sum(requested_refund.credits for requested_refund in back),
        sum(requested_refund.total_minor for requested_refund in back),
        len(payment.open_refunds),
        payment.version,
    )


def _check_purchases(connection: Connection, payments: Iterable[Payment]) -> Iterator[Finding]:
    """Check that every completed payment added its credits."""
    bought = {(_owner(payment), payment.purchase): payment for payment in payments if payment.purchase}
    wanted = [list(column) for column in zip(*bought, strict=True)] or [[], []]
    events_at = {
        (stream, version): _codec.decode(topic, state)
        for stream, version, topic, state in _fetch(connection, _PURCHASES, wanted)
    }
    for place, payment in bought.items():
        event, terms = events_at.get(place), payment.terms
        if not isinstance(event, CreditsPurchased) or (event.credits, event.payment_id) != (
            terms.credits,
            payment.gateway_payment_id,
        ):
            detail = f"{terms.payment_id}: event {payment.purchase} is not its purchase"
            yield Finding("payment", _owner(payment), detail)


def _owner(payment: Payment) -> UUID:
    return stream_id(payment.terms.organisation_id)


def _fetch(connection: Connection, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    return connection.cursor(row_factory=tuple_row).execute(query, values).fetchall()
