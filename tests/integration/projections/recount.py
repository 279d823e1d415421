"""The expected rows of every projected table, computed from the whole log: slow, simple, and independent.

It shares no code with the projections. A log is the list of events in the order of their notification ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import dict_row

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
from domain.shared.aggregate import EventEnvelope

Tables = dict[str, list[dict[str, Any]]]

TABLES = ("balances", "holds", "transactions", "usage_months", "usage_days", "event_usage", "event_totals")


def recount(log: Sequence[EventEnvelope]) -> Tables:
    """Return the rows of every table, sorted."""
    histories: dict[UUID, list[EventEnvelope]] = defaultdict(list)
    for envelope in log:
        histories[envelope.originator_id].append(envelope)
    tables: Tables = {table: [] for table in TABLES}
    for stream, history in histories.items():
        tables["balances"].append({"stream": stream, **_balance(history)})
        tables["holds"] += [{"stream": stream, **row} for row in _holds(history)]
        for table, rows in _statement(history).items():
            tables[table] += [{"stream": stream, **row} for row in rows]
    return _sorted(tables)


def projected(connection: psycopg.Connection[Any], streams: Sequence[UUID]) -> Tables:
    """Return the rows of some organisations in the tables, in the same order."""
    cursor = connection.cursor(row_factory=dict_row)
    tables = {
        table: cursor.execute(
            f"SELECT * FROM projections.{table} WHERE stream = ANY(%s)".encode(), [list(streams)]
        ).fetchall()
        for table in TABLES
    }
    for row in tables["balances"]:
        del row["position"]
    for row in tables["transactions"]:
        row["details"] = row["details"] and msgspec.json.decode(row["details"])
    return _sorted(tables)


def _sorted(tables: Tables) -> Tables:
    return {table: sorted(rows, key=lambda row: repr(sorted(row.items()))) for table, rows in tables.items()}


def _balance(history: list[EventEnvelope]) -> dict[str, Any]:
    recorded = [envelope.event for envelope in history]
    (opened,) = [event for event in recorded if isinstance(event, OrganisationOpened)]

    def total(kind: type[Any]) -> int:
        return sum(event.credits for event in recorded if isinstance(event, kind))

    def latest(kind: type[Any], field: str, before: Any) -> Any:
        return [before, *(getattr(event, field) for event in recorded if isinstance(event, kind))][-1]

    return {
        "organisation_id": opened.organisation_id,
        "balance": sum(event.balance_delta for event in recorded),
        "granted": total(CreditsGranted),
        "purchased": total(CreditsPurchased) - total(PurchaseRefunded) + total(PurchaseRefundReversed),
        "refunded": total(ChargeRefunded),
        "charged": total(UsageCharged),
        "currency": opened.currency,
        "price_millionths": latest(PriceChanged, "price_millionths", opened.price_millionths),
        "plan": latest(PlanChanged, "plan", opened.plan),
        "plan_expires_at": latest(PlanChanged, "expires_at", None),
        "time_zone": latest(TimeZoneChanged, "time_zone", opened.time_zone),
        "opened_at": opened.recorded_at,
        "on_hold": sum(row["credits"] - row["used"] for row in _holds(history) if row["status"] == "open"),
        "version": len(history),
    }


def _holds(history: list[EventEnvelope]) -> list[dict[str, Any]]:
    """Return one row per hold. A charge has the credits it took from a hold."""
    rows = {}
    for envelope in history:
        event = envelope.event
        if isinstance(event, HoldPlaced):
            rows[event.hold_id] = {
                "hold_id": event.hold_id,
                "run_id": event.request.run_id,
                "status": "open",
                "mode": event.request.mode.value,
                "requested": event.request.credits,
                "credits": event.credits,
                "used": 0,
                "placed_at": event.recorded_at,
                "expires_at": event.expires_at,
                "closed_at": None,
                "version": envelope.originator_version,
            }
        elif isinstance(event, UsageCharged) and event.hold_id in rows:
            rows[event.hold_id]["used"] += event.from_hold
        elif isinstance(event, HoldSettled | HoldReleased | HoldExpired):
            row = rows[event.hold_id]
            row["closed_at"] = event.recorded_at
            row["status"] = {HoldSettled: "settled", HoldReleased: "released", HoldExpired: "lapsed"}[
                type(event)
            ]
    return list(rows.values())


class Charge(NamedTuple):
    """A charge of a run, with the month that the run counts in."""

    version: int
    month: date
    event: UsageCharged


def _statement(history: list[EventEnvelope]) -> Tables:
    runs: dict[str, list[Charge]] = {}
    additions = []
    for envelope in history:
        event = envelope.event
        if isinstance(event, UsageCharged):
            # A charge of credits, or of a run that was charged before: hidden charges never had a rate.
            if event.credits > 0 or (event.run_id in runs and event.rate_millionths > 0 and event.photos > 0):
                run = runs.setdefault(event.run_id, [])
                month = run[0].month if run else event.day.replace(day=1)
                run.append(Charge(envelope.originator_version, month, event))
        elif isinstance(event, tuple(_ADDITIONS)):
            additions.append(_addition(envelope.originator_version, event))
    charges = sorted((charge for run in runs.values() for charge in run), key=lambda charge: charge.version)
    days = {(charge.month, charge.event.day) for charge in charges}
    events = {(charge.month, charge.event.event_id) for charge in charges}
    return {
        "transactions": [*additions, *(_run(run) for run in runs.values())],
        "usage_months": [
            _month(month, [charge for charge in charges if charge.month == month])
            for month in {month for month, _ in days}
        ],
        "usage_days": [
            {
                "month": month,
                "day": day,
                **_sums([charge for charge in charges if (charge.month, charge.event.day) == (month, day)]),
            }
            for month, day in days
        ],
        "event_usage": [
            {
                "month": month,
                **_event([c for c in charges if (c.month, c.event.event_id) == (month, event_id)]),
            }
            for month, event_id in events
        ],
        "event_totals": [
            _event([charge for charge in charges if charge.event.event_id == event_id])
            for event_id in {event_id for _, event_id in events}
        ],
    }


def _sums(charges: list[Charge]) -> dict[str, int]:
    return {
        "credits": sum(charge.event.credits for charge in charges),
        "photos": sum(charge.event.photos - charge.event.settled for charge in charges),
    }


def _month(month: date, charges: list[Charge]) -> dict[str, Any]:
    return {
        "month": month,
        **_sums(charges),
        "runs": len({charge.event.run_id for charge in charges}),
        "events": len({charge.event.event_id for charge in charges}),
    }


def _event(charges: list[Charge]) -> dict[str, Any]:
    return {
        "event_id": charges[0].event.event_id,
        "event_name": charges[-1].event.event_name,
        **_sums(charges),
        "runs": len({charge.event.run_id for charge in charges}),
        "first_occurred_at": min(charge.event.occurred_at for charge in charges),
        "last_occurred_at": max(charge.event.occurred_at for charge in charges),
    }


def _run(charges: list[Charge]) -> dict[str, Any]:
    first = charges[0].event
    sums = _sums(charges)
    return {
        "kind": "usage",
        "reference": first.run_id,
        "type": "usage",
        "credits": -sums["credits"],
        "occurred_at": min(charge.event.occurred_at for charge in charges),
        "recorded_at": first.recorded_at,
        "actor": first.actor,
        "month": charges[0].month,
        "photos": sums["photos"],
        "usage_types": list(dict.fromkeys(charge.event.usage_type.value for charge in charges)),
        "event_ids": list(dict.fromkeys(charge.event.event_id for charge in charges)),
        "event_name": first.event_name,
        "first_version": charges[0].version,
        "last_version": charges[-1].version,
        "details": None,
    }


_NO_MONEY = ("amount_minor", "tax_minor", "currency")
_ADDITIONS: dict[type[Any], tuple[str, list[str]]] = {
    CreditsGranted: ("grant", ["kind", "reason"]),
    CreditsPurchased: (
        "purchase",
        [
            "gateway",
            "payment_id",
            "order_id",
            "unit_price_millionths",
            "amount_minor",
            "tax_minor",
            "currency",
        ],
    ),
    ChargeRefunded: ("refund", ["charge", "run_id", "reason"]),
    PurchaseRefunded: (
        "purchase_refund",
        ["purchase", "payment_id", "refund_id", "amount_minor", "tax_minor", "currency"],
    ),
    PurchaseRefundReversed: ("purchase_refund", ["purchase", "payment_id", "refund_id"]),
}


def _addition(version: int, event: Any) -> dict[str, Any]:
    kind, fields = _ADDITIONS[type(event)]
    refund = isinstance(event, ChargeRefunded)
    shown = {"admin": "admin_grant", "trial": "free_credits", "promotional": "free_credits"}
    return {
        "kind": "addition",
        "reference": str(version),
        "type": shown[event.kind] if isinstance(event, CreditsGranted) else kind,
        "credits": event.balance_delta,
        "occurred_at": event.recorded_at,
        "recorded_at": event.recorded_at,
        "actor": event.actor,
        "month": None,
        "photos": None,
        "usage_types": None,
        "event_ids": [event.event_id] if refund else None,
        "event_name": event.event_name if refund else None,
        "first_version": version,
        "last_version": version,
        "details": {
            "type": kind,
            **dict.fromkeys(_NO_MONEY if isinstance(event, PurchaseRefundReversed) else ()),
            **{field: getattr(event, field) for field in fields},
        },
    }
