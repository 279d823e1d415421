"""The query for an organisation's auto top-up settings and state."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

import msgspec
from msgspec import convert

from domain.credits.auto_top_up_events import HeldReason, OffReason
from domain.payments.events import PaymentStatus
from domain.shared.calendar import local_day
from projections.connection import Connection
from projections.query.sql import fetch_of

_AUTO_TOP_UP: Final = """
    SELECT coalesce(top_up.is_on, false) AS is_on, top_up.credits, top_up.threshold, top_up.per_day,
        top_up.card_of, top_up.most_minor, top_up.switched_on_at, top_up.off_reason,
        top_up.last_payment_id, top_up.last_day, top_up.last_number, top_up.held_on,
        top_up.held_reason, last.status AS last_status, balances.currency, balances.time_zone,
        (SELECT "position" FROM projections.positions WHERE projection = 'balance') AS "position"
    FROM projections.balances
    LEFT JOIN projections.auto_top_ups AS top_up ON top_up.stream = balances.stream
    LEFT JOIN projections.payments AS last
        ON last.stream = balances.stream AND last.payment_id = top_up.last_payment_id
    WHERE balances.stream = %(stream)s
"""


class AutoTopUpStatus(msgspec.Struct, frozen=True):
    """Settings and state of auto top-up; None means never set.

    `most_minor` is the maximum per top-up in minor units, tax included. `card_of` is the id of the payment
    whose card is charged. `last_number` counts the top-ups of `last_day`.
    """

    is_on: bool
    credits: int | None
    threshold: int | None
    per_day: int | None
    card_of: str | None
    most_minor: int | None
    switched_on_at: datetime | None
    off_reason: OffReason | None
    last_payment_id: str | None
    last_status: PaymentStatus | None
    last_day: date | None
    last_number: int | None
    held_on: date | None
    held_reason: HeldReason | None
    currency: str
    time_zone: str
    position: int

    def count_started_on(self, now: datetime) -> int:
        """Return how many top-ups were started on the local day of a moment."""
        return (self.last_number or 0) if self.last_day == local_day(self.time_zone, now) else 0

    def held_reason_at(self, now: datetime) -> HeldReason | None:
        """Return why no more top-ups start on the local day of a moment, or None if they may start."""
        is_held = self.is_on and self.held_on == local_day(self.time_zone, now)
        return self.held_reason if is_held else None


def auto_top_up(connection: Connection, organisation_id: str) -> AutoTopUpStatus:
    """Return the auto top-up of an organisation. It is off if it was never switched on.

    Raises:
        OrganisationNotFound: no such organisation is projected.
    """
    (row,) = fetch_of(connection, organisation_id, _AUTO_TOP_UP)
    return convert(row, AutoTopUpStatus)
