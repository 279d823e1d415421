"""Where an organisation's auto top-up stands, as people read it. Beside `projections.credits.queries`."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

import msgspec
from msgspec import convert

from domain.credits.auto_top_up import HeldReason, OffReason
from domain.payments.events import PaymentStatus
from domain.shared.calendar import local_day
from projections.connection import Connection
from projections.query.sql import fetch_of

_AUTO_TOP_UP: Final = """
    SELECT coalesce(standing.is_on, false) AS is_on, standing.credits, standing.threshold, standing.per_day,
        standing.card_of, standing.most_minor, standing.switched_on_at, standing.off_reason,
        standing.last_payment_id, standing.last_day, standing.last_number, standing.held_on,
        standing.held_reason, last.status AS last_status, balances.currency, balances.time_zone,
        (SELECT "position" FROM projections.positions WHERE projection = 'balance') AS "position"
    FROM projections.balances
    LEFT JOIN projections.auto_top_ups AS standing ON standing.stream = balances.stream
    LEFT JOIN projections.payments AS last
        ON last.stream = balances.stream AND last.payment_id = standing.last_payment_id
    WHERE balances.stream = %(stream)s
"""


class AutoTopUpStatus(msgspec.Struct, frozen=True):
    """Auto top-up as it stands: what is None was never set. `most_minor` is in minor units, tax included.

    `card_of` is the payment whose card is charged; `last_number` counts the top-ups of `last_day`.
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
        """Return how many top-ups were begun on the day of a moment."""
        return (self.last_number or 0) if self.last_day == local_day(self.time_zone, now) else 0

    def held_reason_at(self, now: datetime) -> HeldReason | None:
        """Return why no more is begun on the day of a moment; None where nothing holds it back."""
        is_held = self.is_on and self.held_on == local_day(self.time_zone, now)
        return self.held_reason if is_held else None


def auto_top_up(connection: Connection, organisation_id: str) -> AutoTopUpStatus:
    """Return where auto top-up stands: off, for whoever never switched it on.

    Raises:
        OrganisationNotFound: no such organisation is projected.
    """
    (row,) = fetch_of(connection, organisation_id, _AUTO_TOP_UP)
    return convert(row, AutoTopUpStatus)
