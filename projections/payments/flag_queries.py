"""Queries for payment flags of all organisations, for staff and auditors."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from msgspec import convert

from domain.payments.events import REFUNDABLE_FLAGS, Flag, FlagKey, PaymentKind, PaymentStatus
from domain.shared.money import Currency
from projections.connection import Connection
from projections.query.cursors import FlagCursor, decode_cursor, encode_cursor
from projections.query.sql import check_limit, fetch

# Open and settled flags are each read from an index of their own, starting at the cursor.
_FLAGS: Final = """
    SELECT listed.*, reached."position"
    FROM (SELECT coalesce(min("position"), 0) AS "position" FROM projections.positions) AS reached
    LEFT JOIN LATERAL (
        SELECT organisation_id, flags.payment_id, flag, flags.gateway_payment_id, flags.amount_minor,
            flags.currency, flagged_at, settled_at, settled_by, refund_id, flags.raised, kind, status,
            gateway, order_id, payments.gateway_payment_id AS paid_by,
            payments.amount_minor + tax_minor AS total_minor, payments.currency AS payment_currency,
            open_refunds
        FROM (
            (SELECT *, "position" AS raised FROM projections.payment_flags
            WHERE settled_at IS NULL AND "position" < %(open_before)s
            ORDER BY payment_flags."position" DESC LIMIT %(limit)s)
            UNION ALL
            (SELECT *, "position" AS raised FROM projections.payment_flags
            WHERE settled_at IS NOT NULL AND "position" < %(settled_before)s
            ORDER BY payment_flags."position" DESC LIMIT %(limit)s)
        ) AS flags
        JOIN projections.payments USING (stream, payment_id)
        JOIN projections.balances USING (stream)
        ORDER BY settled_at IS NOT NULL, raised DESC LIMIT %(limit)s
    ) AS listed ON true
    ORDER BY settled_at IS NOT NULL, raised DESC
"""

_FIRST_PAGE: Final = 2**63 - 1
_NONE: Final = 0


class FlagRow(msgspec.Struct, frozen=True):
    """A flag: an amount that an attempt moved, and the payment it belongs to.

    `amount_minor` in `currency` was moved; `total_minor` in `payment_currency` was due. `paid_by` is the
    attempt that paid it, if any.
    """

    organisation_id: str
    payment_id: str
    flag: Flag
    gateway_payment_id: str
    amount_minor: int
    currency: str
    flagged_at: datetime
    settled_at: datetime | None
    settled_by: str | None
    refund_id: str | None
    raised: int
    kind: PaymentKind
    status: PaymentStatus
    gateway: str
    order_id: str | None
    paid_by: str | None
    total_minor: int
    payment_currency: Currency
    open_refunds: int

    @property
    def key(self) -> FlagKey:
        """The key of the flag among the flags of its payment."""
        return FlagKey(self.flag, self.gateway_payment_id, self.amount_minor)

    @property
    def is_open(self) -> bool:
        """Whether somebody still has to review the flag."""
        return self.settled_at is None

    @property
    def is_refundable(self) -> bool:
        """Whether the whole amount of the attempt can be refunded, because it bought nothing."""
        return self.is_open and self.flag in REFUNDABLE_FLAGS and self.gateway_payment_id != self.paid_by


class FlagPage(msgspec.Struct, frozen=True):
    """Flags, open before settled, newest first; `next_cursor` is None on the last page."""

    flags: list[FlagRow]
    next_cursor: str | None
    position: int


def flags(connection: Connection, cursor: str | None, limit: int) -> FlagPage:
    """Return a page of flags of all organisations, open before settled, newest first.

    Raises:
        InvalidInput: the cursor belongs to another list, or `limit` is outside 1 to 500.
    """
    check_limit(limit)
    after = decode_cursor(cursor, FlagCursor) if cursor else FlagCursor(True, _FIRST_PAGE)
    rows = fetch(
        connection,
        _FLAGS,
        open_before=after.position if after.is_open else _NONE,
        settled_before=_FIRST_PAGE if after.is_open else after.position,
        limit=limit + 1,
    )
    found = [convert(row, FlagRow) for row in rows if row["payment_id"] is not None]
    page, rest = found[:limit], found[limit:]
    next_cursor = encode_cursor(FlagCursor(page[-1].is_open, page[-1].raised)) if rest else None
    return FlagPage(page, next_cursor, rows[0]["position"])
