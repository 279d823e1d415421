"""The table `holds` of the projection `balance`: one row per hold, open or closed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from domain.credits.events import HoldExpired, HoldPlaced, HoldReleased, HoldSettled, UsageCharged
from domain.credits.holds import HoldMode
from domain.shared.errors import InvariantViolation
from projections.connection import Connection
from projections.engine.event_log import LogEntry
from projections.engine.upserts import write_rows


class HoldStatus(StrEnum):
    """The state of a hold."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "lapsed"


_PLACE: Final = "INSERT INTO holds SELECT * FROM json_populate_recordset(NULL::holds, %s)"

_CHANGE: Final = """
    UPDATE holds AS existing SET
        used = existing.used + change.used,
        status = coalesce(change.status, existing.status),
        closed_at = coalesce(change.closed_at, existing.closed_at)
    FROM json_populate_recordset(NULL::holds, %s) AS change
    WHERE existing.stream = change.stream AND existing.hold_id = change.hold_id
"""

_CLOSED_AS: Final = {
    HoldSettled: HoldStatus.SETTLED,
    HoldReleased: HoldStatus.RELEASED,
    HoldExpired: HoldStatus.EXPIRED,
}


class NewHoldRow(msgspec.Struct, frozen=True):
    """A new row of `holds`."""

    stream: str
    hold_id: str
    run_id: str
    mode: HoldMode
    requested: int
    credits: int
    placed_at: datetime
    expires_at: datetime
    version: int
    status: HoldStatus = HoldStatus.OPEN
    used: int = 0


class HoldChange(msgspec.Struct):
    """What a batch changes in the row of one hold. None: the column does not change."""

    stream: str
    hold_id: str
    used: int = 0
    status: HoldStatus | None = None
    closed_at: datetime | None = None


class HoldChanges:
    """What a batch changes in `holds`."""

    def __init__(self, placed: Sequence[NewHoldRow], changes: Sequence[HoldChange]) -> None:
        self._placed = placed
        self._changes = changes

    def write(self, connection: Connection) -> None:
        """Insert holds that were placed, then update all changed ones.

        Raises:
            InvariantViolation: a hold changed but was never placed.
        """
        if self._placed:
            write_rows(connection, _PLACE, self._placed)
        if self._changes and write_rows(connection, _CHANGE, self._changes) != len(self._changes):
            raise InvariantViolation("a hold changed but was never placed")


def fold_holds(entries: Sequence[LogEntry]) -> HoldChanges:
    """Return the changes of log entries in `holds`. Nearly all entries change nothing."""
    placed: list[NewHoldRow] = []
    changes: dict[tuple[bytes, str], HoldChange] = {}

    def change_of(stream: bytes, hold_id: str) -> HoldChange:
        return changes.setdefault((stream, hold_id), HoldChange(stream.hex(), hold_id))

    for _, stream, version, event in entries:
        if isinstance(event, UsageCharged):
            if event.from_hold and event.hold_id is not None:
                change_of(stream, event.hold_id).used += event.from_hold
        elif isinstance(event, HoldPlaced):
            placed.append(_new_hold_row(stream, version, event))
        elif isinstance(event, HoldSettled | HoldReleased | HoldExpired):
            change = change_of(stream, event.hold_id)
            change.status = _CLOSED_AS[type(event)]
            change.closed_at = event.recorded_at
    return HoldChanges(placed, list(changes.values()))


def _new_hold_row(stream: bytes, version: int, event: HoldPlaced) -> NewHoldRow:
    return NewHoldRow(
        stream.hex(),
        event.hold_id,
        event.request.run_id,
        event.request.mode,
        event.request.credits,
        event.credits,
        event.recorded_at,
        event.expires_at,
        version,
    )
