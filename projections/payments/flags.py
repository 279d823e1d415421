"""The projection `payment_flags`: open and settled flags of payments, of all organisations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from domain.payments.events import Flag, PaymentFlagged, PaymentFlagSettled
from domain.shared.errors import InvariantViolation
from domain.shared.stream_keys import stream_id
from projections.connection import Connection
from projections.engine.event_log import LogEntry
from projections.engine.upserts import write_rows

_RAISE: Final = """
    INSERT INTO payment_flags SELECT * FROM json_populate_recordset(NULL::payment_flags, %s)
    ON CONFLICT (stream, payment_id, flag, gateway_payment_id, amount_minor) DO UPDATE SET
        currency = excluded.currency,
        flagged_at = excluded.flagged_at,
        settled_at = excluded.settled_at,
        settled_by = excluded.settled_by,
        refund_id = excluded.refund_id,
        "position" = excluded."position"
"""

_SETTLE: Final = """
    UPDATE payment_flags AS existing SET
        settled_at = change.settled_at, settled_by = change.settled_by, refund_id = change.refund_id
    FROM json_populate_recordset(NULL::payment_flags, %s) AS change
    WHERE (existing.stream, existing.payment_id, existing.flag)
        = (change.stream, change.payment_id, change.flag)
        AND (existing.gateway_payment_id, existing.amount_minor)
        = (change.gateway_payment_id, change.amount_minor)
"""

_Key = tuple[str, Flag, str, int]


class FlagRow(msgspec.Struct):
    """A row of `payment_flags`. Without `flagged_at`, it settles an existing row."""

    stream: str
    payment_id: str
    flag: Flag
    gateway_payment_id: str
    amount_minor: int
    currency: str | None = None
    flagged_at: datetime | None = None
    settled_at: datetime | None = None
    settled_by: str | None = None
    refund_id: str | None = None
    position: int = 0


class FlagChanges:
    """What a batch changes in `payment_flags`."""

    def __init__(self, rows: Sequence[FlagRow]) -> None:
        self._raised = [row for row in rows if row.flagged_at is not None]
        self._settled = [row for row in rows if row.flagged_at is None]

    def write(self, connection: Connection) -> None:
        """Write new flags, then settle existing ones.

        Raises:
            InvariantViolation: a flag was settled but never raised.
        """
        write_rows(connection, _RAISE, self._raised)
        if write_rows(connection, _SETTLE, self._settled) != len(self._settled):
            raise InvariantViolation("a flag was settled but never raised")


class PaymentFlagsProjection:
    """Folds events that raise or settle flags, and skips all others."""

    name = "payment_flags"
    tables = ("payment_flags",)

    def fold(self, entries: Sequence[LogEntry]) -> FlagChanges:
        """Return the changes of log entries. Nearly all entries change nothing."""
        rows: dict[_Key, FlagRow] = {}
        for position, _, _, event in entries:
            if isinstance(event, PaymentFlagged):
                row = _row_of(event)
                row.currency, row.flagged_at, row.position = event.currency, event.recorded_at, position
                rows[event.payment_id, *event.key] = row
            elif isinstance(event, PaymentFlagSettled):
                row = rows.setdefault((event.payment_id, *event.key), _row_of(event))
                row.settled_at, row.settled_by = event.recorded_at, event.actor
                row.refund_id = event.refund_id
        return FlagChanges(list(rows.values()))


def _row_of(event: PaymentFlagged | PaymentFlagSettled) -> FlagRow:
    return FlagRow(stream_id(event.organisation_id).hex, event.payment_id, *event.key)
