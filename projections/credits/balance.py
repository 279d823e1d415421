"""The projection `balance`: one row per organisation with its credits and terms.

It also fills the tables of holds and of auto top-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from domain.credits.events import (
    ChargeRefunded,
    CreditsGranted,
    CreditsPurchased,
    HoldExpired,
    HoldPlaced,
    HoldReleased,
    HoldSettled,
    OrganisationOpened,
    PlanChanged,
    PriceChanged,
    PurchaseRefunded,
    PurchaseRefundReversed,
    TimeZoneChanged,
    UsageCharged,
)
from domain.event_catalogue import ORGANISATION_EVENT_CLASSES
from domain.pricing.plans import Plan
from domain.shared.aggregate import DomainEvent
from domain.shared.errors import InvariantViolation
from domain.shared.money import Currency
from projections.connection import Connection
from projections.credits.auto_top_ups import TopUpChanges, fold_top_ups
from projections.credits.holds import HoldChanges, fold_holds
from projections.engine.event_log import LogEntry
from projections.engine.upserts import write_rows

_OPEN: Final = """
    INSERT INTO balances
    SELECT * FROM json_populate_recordset(NULL::balances, %s)
"""

_CHANGE: Final = """
    UPDATE balances AS existing SET
        balance = existing.balance + change.granted + change.purchased + change.refunded - change.charged,
        granted = existing.granted + change.granted,
        purchased = existing.purchased + change.purchased,
        refunded = existing.refunded + change.refunded,
        charged = existing.charged + change.charged,
        price_millionths = coalesce(change.price_millionths, existing.price_millionths),
        plan = coalesce(change.plan, existing.plan),
        plan_expires_at =
            CASE WHEN change.plan IS NULL THEN existing.plan_expires_at ELSE change.plan_expires_at END,
        time_zone = coalesce(change.time_zone, existing.time_zone),
        on_hold = existing.on_hold + change.on_hold,
        version = change.version,
        "position" = change."position"
    FROM json_populate_recordset(NULL::balances, %s) AS change
    WHERE existing.stream = change.stream
"""


class NewBalanceRow(msgspec.Struct, frozen=True):
    """A new row of `balances`, before any change."""

    stream: str
    organisation_id: str
    currency: Currency
    price_millionths: int
    plan: Plan
    time_zone: str
    opened_at: datetime
    balance: int = 0
    granted: int = 0
    purchased: int = 0
    refunded: int = 0
    charged: int = 0
    on_hold: int = 0
    version: int = 0
    position: int = 0


class BalanceChange(msgspec.Struct):
    """What a batch changes in the row of one organisation. None: the column does not change."""

    stream: str
    version: int = 0
    position: int = 0
    granted: int = 0
    purchased: int = 0
    refunded: int = 0
    charged: int = 0
    on_hold: int = 0
    price_millionths: int | None = None
    plan: Plan | None = None
    plan_expires_at: datetime | None = None
    time_zone: str | None = None


class BalanceChanges:
    """What a batch changes in `balances`, `holds` and `auto_top_ups`."""

    def __init__(
        self,
        opened: Sequence[NewBalanceRow],
        changes: Sequence[BalanceChange],
        holds: HoldChanges,
        top_ups: TopUpChanges,
    ) -> None:
        self._opened = opened
        self._changes = changes
        self._holds = holds
        self._top_ups = top_ups

    def write(self, connection: Connection) -> None:
        """Insert organisations that opened, then update all changed ones.

        Raises:
            InvariantViolation: an organisation changed but was never opened.
        """
        write_rows(connection, _OPEN, self._opened)
        changed = write_rows(connection, _CHANGE, self._changes)
        if changed != len(self._changes):
            raise InvariantViolation(
                f"{len(self._changes) - changed} organisations changed but were never opened"
            )
        self._holds.write(connection)
        self._top_ups.write(connection)


class BalanceProjection:
    """Folds all events of organisations into `balances`, and events of holds and auto top-up into their
    tables.
    """

    name = "balance"
    tables = ("balances", "holds", "auto_top_ups")

    def fold(self, entries: Sequence[LogEntry]) -> BalanceChanges:
        """Return the changes of log entries. Every event of an organisation sets its version and position."""
        opened: list[NewBalanceRow] = []
        changes: dict[bytes, BalanceChange] = {}
        for position, stream, version, event in entries:
            fold = _FOLDS.get(type(event))
            if fold is None:
                continue  # an event of another aggregate
            if isinstance(event, OrganisationOpened):
                opened.append(_new_balance_row(stream, event))
            change = changes.get(stream)
            if change is None:
                change = changes[stream] = BalanceChange(stream.hex())
            change.version = version
            change.position = position
            fold(change, event)
        return BalanceChanges(opened, list(changes.values()), fold_holds(entries), fold_top_ups(entries))


def _new_balance_row(stream: bytes, event: OrganisationOpened) -> NewBalanceRow:
    return NewBalanceRow(
        stream.hex(),
        event.organisation_id,
        event.currency,
        event.price_millionths,
        event.plan,
        event.time_zone,
        event.recorded_at,
    )


def _no_change(_: BalanceChange, __: DomainEvent) -> None:
    """For an event that changes neither credits nor terms."""


def _charged(change: BalanceChange, event: UsageCharged) -> None:
    change.charged += event.credits
    change.on_hold -= event.from_hold


def _hold_placed(change: BalanceChange, event: HoldPlaced) -> None:
    change.on_hold += event.credits


def _hold_closed(change: BalanceChange, event: HoldSettled | HoldReleased | HoldExpired) -> None:
    change.on_hold -= event.released


def _granted(change: BalanceChange, event: CreditsGranted) -> None:
    change.granted += event.credits


def _purchased(change: BalanceChange, event: CreditsPurchased) -> None:
    change.purchased += event.credits


def _purchase_refunded(change: BalanceChange, event: PurchaseRefunded | PurchaseRefundReversed) -> None:
    change.purchased += event.balance_delta


def _refunded(change: BalanceChange, event: ChargeRefunded) -> None:
    change.refunded += event.credits


def _price_changed(change: BalanceChange, event: PriceChanged) -> None:
    change.price_millionths = event.price_millionths


def _plan_changed(change: BalanceChange, event: PlanChanged) -> None:
    change.plan = event.plan
    change.plan_expires_at = event.expires_at


def _time_zone_changed(change: BalanceChange, event: TimeZoneChanged) -> None:
    change.time_zone = event.time_zone


_FOLDS: Final[Mapping[type[Any], Callable[[BalanceChange, Any], None]]] = {
    **dict.fromkeys(ORGANISATION_EVENT_CLASSES, _no_change),
    UsageCharged: _charged,
    CreditsGranted: _granted,
    CreditsPurchased: _purchased,
    ChargeRefunded: _refunded,
    PurchaseRefunded: _purchase_refunded,
    PurchaseRefundReversed: _purchase_refunded,
    PriceChanged: _price_changed,
    PlanChanged: _plan_changed,
    TimeZoneChanged: _time_zone_changed,
    HoldPlaced: _hold_placed,
    HoldSettled: _hold_closed,
    HoldReleased: _hold_closed,
    HoldExpired: _hold_closed,
}
