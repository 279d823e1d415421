"""The table `auto_top_ups` of the projection `balance`: one row per organisation with auto top-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

import msgspec

from domain.credits.auto_top_up_events import (
    AutoTopUpBegun,
    AutoTopUpChanged,
    AutoTopUpHeld,
    AutoTopUpSwitchedOff,
    AutoTopUpSwitchedOn,
    HeldReason,
    OffReason,
)
from domain.shared.errors import InvariantViolation
from projections.connection import Connection
from projections.engine.event_log import LogEntry
from projections.engine.upserts import write_rows

NOT_HELD: Final = date.min

_SWITCH_ON: Final = """
    INSERT INTO auto_top_ups SELECT * FROM json_populate_recordset(NULL::auto_top_ups, %s)
    ON CONFLICT DO NOTHING
"""
_CHANGE: Final = """
    UPDATE auto_top_ups AS existing SET
        is_on = coalesce(change.is_on, existing.is_on),
        credits = coalesce(change.credits, existing.credits),
        threshold = coalesce(change.threshold, existing.threshold),
        per_day = coalesce(change.per_day, existing.per_day),
        card_of = coalesce(change.card_of, existing.card_of),
        most_minor = coalesce(change.most_minor, existing.most_minor),
        switched_on_at = coalesce(change.switched_on_at, existing.switched_on_at),
        off_reason = coalesce(change.off_reason, existing.off_reason),
        last_payment_id = coalesce(change.last_payment_id, existing.last_payment_id),
        last_day = coalesce(change.last_day, existing.last_day),
        last_number = coalesce(change.last_number, existing.last_number),
        held_on = coalesce(change.held_on, existing.held_on),
        held_reason = coalesce(change.held_reason, existing.held_reason)
    FROM json_populate_recordset(NULL::auto_top_ups, %s) AS change
    WHERE existing.stream = change.stream
"""


class _SwitchedOn(msgspec.Struct, frozen=True):
    stream: str
    is_on: bool = True


class TopUpChange(msgspec.Struct):
    """What a batch changes in the row of one organisation. None: the column does not change."""

    stream: str
    is_on: bool | None = None
    credits: int | None = None
    threshold: int | None = None
    per_day: int | None = None
    card_of: str | None = None
    most_minor: int | None = None
    switched_on_at: datetime | None = None
    off_reason: OffReason | None = None
    last_payment_id: str | None = None
    last_day: date | None = None
    last_number: int | None = None
    held_on: date | None = None
    held_reason: HeldReason | None = None


class TopUpChanges:
    """What a batch changes in `auto_top_ups`."""

    def __init__(self, switched_on: Sequence[str], changes: Sequence[TopUpChange]) -> None:
        self._switched_on = switched_on
        self._changes = changes

    def write(self, connection: Connection) -> None:
        """Insert organisations that switched auto top-up on for the first time, then update all changes.

        Raises:
            InvariantViolation: auto top-up changed but was never switched on.
        """
        write_rows(connection, _SWITCH_ON, [_SwitchedOn(stream) for stream in self._switched_on])
        if write_rows(connection, _CHANGE, self._changes) != len(self._changes):
            raise InvariantViolation("an auto top-up changed but was never switched on")


def fold_top_ups(entries: Sequence[LogEntry]) -> TopUpChanges:
    """Return the changes of log entries in `auto_top_ups`. Nearly all entries change nothing."""
    changes: dict[bytes, TopUpChange] = {}
    switched_on: dict[str, None] = {}
    for _, stream, _, event in entries:
        fold = _FOLDS.get(type(event))
        if fold is not None:
            change = changes.setdefault(stream, TopUpChange(stream.hex()))
            fold(change, event)
            if isinstance(event, AutoTopUpSwitchedOn):
                switched_on[change.stream] = None
    return TopUpChanges(list(switched_on), list(changes.values()))


def _switched_on(change: TopUpChange, event: AutoTopUpSwitchedOn) -> None:
    _changed(change, event)
    change.is_on = True
    change.card_of, change.most_minor = event.payment_id, event.amount_minor_max
    change.switched_on_at = event.recorded_at


def _changed(change: TopUpChange, event: AutoTopUpSwitchedOn | AutoTopUpChanged) -> None:
    change.credits, change.threshold, change.per_day = event.credits, event.threshold, event.per_day
    change.held_on = NOT_HELD


def _switched_off(change: TopUpChange, event: AutoTopUpSwitchedOff) -> None:
    change.is_on = False
    change.off_reason = event.reason


def _begun(change: TopUpChange, event: AutoTopUpBegun) -> None:
    change.last_payment_id = event.payment_id
    change.last_day, change.last_number = event.day, event.number


def _held(change: TopUpChange, event: AutoTopUpHeld) -> None:
    change.held_on, change.held_reason = event.day, event.reason


_FOLDS: Final[Mapping[type[Any], Callable[[TopUpChange, Any], None]]] = {
    AutoTopUpSwitchedOn: _switched_on,
    AutoTopUpChanged: _changed,
    AutoTopUpSwitchedOff: _switched_off,
    AutoTopUpBegun: _begun,
    AutoTopUpHeld: _held,
}
