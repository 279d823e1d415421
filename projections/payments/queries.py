"""Queries for the payments of an organisation."""

from __future__ import annotations

from datetime import MAXYEAR, UTC, datetime
from typing import Final

import msgspec
from msgspec import convert

from domain.payments.errors import PaymentNotFound
from domain.payments.events import Flag, PaymentKind, PaymentStatus
from domain.shared.money import Currency
from projections.connection import Connection
from projections.query.cursors import PaymentCursor, decode_cursor, encode_cursor
from projections.query.sql import check_limit, fetch_of

_PAYMENTS: Final = """
    SELECT listed.*,
        (SELECT min("position") FROM projections.positions
            WHERE projection IN ('payments', 'payment_flags')) AS "position"
    FROM projections.balances
    LEFT JOIN LATERAL (
        SELECT payment_id, kind, status, gateway, order_id, gateway_payment_id, credits,
            unit_price_millionths, credits_minor, fee_minor, amount_minor, tax_minor, currency,
            price_version, refunded_credits, refunded_minor, open_refunds, reason, requested_by,
            created_at, completed_at, version,
            (SELECT flag FROM projections.payment_flags AS flags
                WHERE flags.stream = %(stream)s AND flags.payment_id = payments.payment_id
                    AND settled_at IS NULL
                ORDER BY flags."position" DESC LIMIT 1) AS flag
        FROM projections.payments
        WHERE stream = %(stream)s AND (created_at, payment_id) < (%(before)s, %(before_id)s)
            AND (%(payment_id)s::text IS NULL OR payment_id = %(payment_id)s)
        ORDER BY created_at DESC, payment_id DESC LIMIT %(limit)s
    ) AS listed ON true
    WHERE balances.stream = %(stream)s
    ORDER BY listed.created_at DESC, listed.payment_id DESC
"""

_FIRST_PAGE: Final = PaymentCursor(datetime(MAXYEAR - 1, 12, 31, tzinfo=UTC), "")


class PaymentRow(msgspec.Struct, frozen=True):
    """A payment. Amounts are in minor units; tax is added to the amount, and is included in `refunded_minor`.

    `open_refunds` counts refunds that the gateway has not answered; `flag` is the latest open flag, if any.
    """

    payment_id: str
    kind: PaymentKind
    status: PaymentStatus
    gateway: str
    order_id: str | None
    gateway_payment_id: str | None
    credits: int
    unit_price_millionths: int
    credits_minor: int
    fee_minor: int
    amount_minor: int
    tax_minor: int
    currency: Currency
    price_version: str
    refunded_credits: int
    refunded_minor: int
    open_refunds: int
    flag: Flag | None
    reason: str | None
    requested_by: str | None
    created_at: datetime
    completed_at: datetime | None
    version: int

    @property
    def total_minor(self) -> int:
        """What the payer pays."""
        return self.amount_minor + self.tax_minor


class PaymentPage(msgspec.Struct, frozen=True):
    """Payments, newest first; `next_cursor` is None on the last page."""

    payments: list[PaymentRow]
    next_cursor: str | None
    position: int


def payments(connection: Connection, organisation_id: str, cursor: str | None, limit: int) -> PaymentPage:
    """Return a page of payments, newest first.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        InvalidInput: the cursor belongs to another list, or `limit` is outside 1 to 500.
    """
    check_limit(limit)
    before = decode_cursor(cursor, PaymentCursor) if cursor else _FIRST_PAGE
    found, position = _payments(connection, organisation_id, None, before, limit + 1)
    page, rest = found[:limit], found[limit:]
    next_cursor = encode_cursor(PaymentCursor(page[-1].created_at, page[-1].payment_id)) if rest else None
    return PaymentPage(page, next_cursor, position)


def payment(connection: Connection, organisation_id: str, payment_id: str) -> PaymentPage:
    """Return one payment.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        PaymentNotFound: it has no payment of this id.
    """
    found, position = _payments(connection, organisation_id, payment_id, _FIRST_PAGE, 1)
    if not found:
        raise PaymentNotFound(payment_id=payment_id)
    return PaymentPage(found, None, position)


def _payments(
    connection: Connection, organisation_id: str, payment_id: str | None, before: PaymentCursor, limit: int
) -> tuple[list[PaymentRow], int]:
    rows = fetch_of(
        connection,
        organisation_id,
        _PAYMENTS,
        payment_id=payment_id,
        before=before.created_at,
        before_id=before.payment_id,
        limit=limit,
    )
    found = [convert(row, PaymentRow) for row in rows if row["payment_id"] is not None]
    return found, rows[0]["position"]
