"""Replays payments through their aggregate, and holds their rows and their purchases against it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import tuple_row

from domain.aggregate import Event
from domain.catalogue import PAYMENT, FactCodec
from domain.errors import LedgerError
from domain.facts import CreditsPurchased
from domain.identity import payment_stream, stream_id
from domain.payment import Payment, evolve
from domain.payment_facts import PaymentRefundRequested
from projections.findings import Finding
from projections.streaming import in_batches, stream_rows

Connection = psycopg.Connection[Any]

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
_BEGUN: Final = """
    SELECT originator_id FROM ledger.events
    WHERE originator_id = ANY(%s) AND originator_version = 1 AND notification_id <= %s
"""
_PAYMENTS_AT_ONCE: Final = 1_000
_ERRORS: Final = (LedgerError, AttributeError, KeyError, msgspec.DecodeError)

_codec: Final = FactCodec()


def check_payments(connection: Connection, position: int) -> Iterator[Finding]:
    """Return what the rows of payments say otherwise than their histories, and completions without credits.

    Takes a connection in a transaction. However many payments there are, few are held at a time.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    for batch in in_batches(_replayed(connection, _EVENTS, position), _PAYMENTS_AT_ONCE):
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
    yield from _rows_of_nothing(connection, position)


def _rows_of_nothing(connection: Connection, position: int) -> Iterator[Finding]:
    ids = (payment_id for (payment_id,) in stream_rows(connection, "payment_ids", _ALL_IDS))
    for batch in in_batches(ids, _PAYMENTS_AT_ONCE):
        streams = {payment_stream(payment_id): payment_id for payment_id in batch}
        begun = {stream for (stream,) in _fetch(connection, _BEGUN, [list(streams), position])}
        for stream, payment_id in streams.items():
            if stream not in begun:
                yield Finding("payment", None, f"{payment_id}: a row of a payment that the log does not have")


def check_flags(connection: Connection, position: int) -> Iterator[Finding]:
    """Return what the rows of flags say otherwise than the histories of payments.

    Takes a connection in a transaction.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    rows = {(payment_id, *key): is_open for payment_id, *key, is_open in _fetch(connection, _FLAG_ROWS)}
    for payment in _replayed(connection, _EVENTS_OF_FLAGGED, position):
        if isinstance(payment, Finding):
            continue  # `check_payments` has told
        payment_id, owner = payment.terms.payment_id, _owner(payment)
        for key in payment.flags:
            expected, found = key in payment.open_flags, rows.pop((payment_id, *key), None)
            if found is not expected:
                yield Finding("flag", owner, f"{payment_id}, {key}: open {found}, log: {expected}")
    for unknown in rows:
        yield Finding("flag", None, f"{unknown}: a row of a flag that the log does not have")


def _replayed(connection: Connection, query: str, position: int) -> Iterator[Payment | Finding]:
    """Yield the payments whose events a query finds, or why one cannot be replayed."""
    events = stream_rows(connection, "payment_events", query, [list(PAYMENT), position])
    for stream, history in groupby(events, key=itemgetter(0)):
        payment: Payment | None = None
        try:
            for _, version, topic, state in history:
                payment = evolve(payment, Event(stream, version, _codec.decode(topic, state)))
            assert payment is not None
            payment.check_invariants()
        except _ERRORS as error:
            yield Finding("payment", stream, f"it cannot be replayed: {error or type(error).__name__}")
        else:
            yield payment


def _row_of(payment: Payment) -> tuple[Any, ...]:
    asked = (refund.asked for refund in payment.refunds.values() if refund.went_back)
    back = [each for each in asked if isinstance(each, PaymentRefundRequested)]
    return (
        payment.status.value,
        payment.order_id,
        payment.gateway_payment_id,
        payment.terms.amount_minor,
        payment.terms.tax_minor,
        sum(asked.credits for asked in back),
        sum(asked.total_minor for asked in back),
        len(payment.open_refunds),
        payment.version,
    )


def _check_purchases(connection: Connection, payments: Iterable[Payment]) -> Iterator[Finding]:
    """Payments that were completed added the credits they were for."""
    bought = {(_owner(payment), payment.purchase): payment for payment in payments if payment.purchase}
    wanted = [list(column) for column in zip(*bought, strict=True)] or [[], []]
    facts = {
        (stream, version): _codec.decode(topic, state)
        for stream, version, topic, state in _fetch(connection, _PURCHASES, wanted)
    }
    for place, payment in bought.items():
        fact, terms = facts.get(place), payment.terms
        if not isinstance(fact, CreditsPurchased) or (fact.credits, fact.payment_id) != (
            terms.credits,
            payment.gateway_payment_id,
        ):
            detail = f"{terms.payment_id}: event {payment.purchase} is not its purchase"
            yield Finding("payment", _owner(payment), detail)


def _owner(payment: Payment) -> UUID:
    return stream_id(payment.terms.organisation_id)


def _fetch(connection: Connection, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    return connection.cursor(row_factory=tuple_row).execute(query, values).fetchall()
