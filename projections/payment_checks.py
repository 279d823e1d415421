"""Replays payments through their aggregate, and holds their rows and their purchases against it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from domain.identity import stream_id
from domain.payment import Payment, evolve
from domain.payment_facts import PaymentRefundRequested
from projections.findings import Finding

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
    FROM projections.payments
"""
_FLAG_ROWS: Final = """
    SELECT payment_id, flag, gateway_payment_id, amount_minor, settled_at IS NULL
    FROM projections.payment_flags
"""
_PURCHASE: Final = """
    SELECT topic, state FROM ledger.events WHERE originator_id = %s AND originator_version = %s
"""
_ERRORS: Final = (LedgerError, AttributeError, KeyError, msgspec.DecodeError)

_codec: Final = FactCodec()


def check_payments(connection: Connection, position: int) -> Iterator[Finding]:
    """Return what the rows of payments say otherwise than their histories, and completions without credits.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    rows = {name: tuple(row) for name, *row in _fetch(connection, _ROWS)}
    events = _fetch(connection, _EVENTS, [list(PAYMENT), position])
    for stream, history in groupby(events, key=itemgetter(0)):
        payment = _replayed(stream, history)
        if isinstance(payment, Finding):
            yield payment
            continue
        payment_id = payment.terms.payment_id
        expected, row = _row_of(payment), rows.pop(payment_id, None)
        owner = stream_id(payment.terms.organisation_id)
        if row != expected:
            yield Finding("payment", owner, f"{payment_id}: {row}, log: {expected}")
        yield from _check_purchase(connection, payment)
    for payment_id in rows:
        yield Finding("payment", None, f"{payment_id}: a row of a payment that the log does not have")


def check_flags(connection: Connection, position: int) -> Iterator[Finding]:
    """Return what the rows of flags say otherwise than the histories of payments.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    rows = {(payment_id, *key): is_open for payment_id, *key, is_open in _fetch(connection, _FLAG_ROWS)}
    events = _fetch(connection, _EVENTS_OF_FLAGGED, [list(PAYMENT), position])
    for stream, history in groupby(events, key=itemgetter(0)):
        payment = _replayed(stream, history)
        if isinstance(payment, Finding):
            continue  # `check_payments` has told
        payment_id, owner = payment.terms.payment_id, stream_id(payment.terms.organisation_id)
        for key in payment.flags:
            expected, found = key in payment.open_flags, rows.pop((payment_id, *key), None)
            if found is not expected:
                yield Finding("flag", owner, f"{payment_id}, {key}: open {found}, log: {expected}")
    for unknown in rows:
        yield Finding("flag", None, f"{unknown}: a row of a flag that the log does not have")


def _replayed(stream: UUID, history: Iterable[tuple[Any, ...]]) -> Payment | Finding:
    payment: Payment | None = None
    try:
        for _, version, topic, state in history:
            payment = evolve(payment, Event(stream, version, _codec.decode(topic, state)))
        assert payment is not None
        payment.check_invariants()
    except _ERRORS as error:
        return Finding("payment", stream, f"it cannot be replayed: {error or type(error).__name__}")
    return payment


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


def _check_purchase(connection: Connection, payment: Payment) -> Iterator[Finding]:
    """A payment that was completed added the credits it was for."""
    if payment.purchase is None:
        return
    terms = payment.terms
    owner = stream_id(terms.organisation_id)
    found = _fetch(connection, _PURCHASE, [owner, payment.purchase])
    bought = _codec.decode(*found[0]) if found else None
    if not isinstance(bought, CreditsPurchased) or (bought.credits, bought.payment_id) != (
        terms.credits,
        payment.gateway_payment_id,
    ):
        yield Finding("payment", owner, f"{terms.payment_id}: event {payment.purchase} is not its purchase")


def _fetch(connection: Connection, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
    return connection.cursor(row_factory=tuple_row).execute(query, values).fetchall()
