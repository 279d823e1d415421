"""The recount: computes the expected charges and table rows from the accepted messages alone.

The rules of the product: a fractional charge is rounded up once per run, usage type and rate. Zero charges
are stored but not shown. A run counts with all its charges in the month (in the organisation's zone) of its
first charge in ledger order. A day is the local day of each charge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.auditor.accounts import MILLION, Rates
from tests.auditor.wire import Message

Row = dict[str, Any]
Table = dict[tuple[Any, ...], Row]


class Charge(NamedTuple):
    """The charge of a message, at its place in ledger order."""

    message: Message
    rate: int
    credits: int
    day: date

    @property
    def counts(self) -> bool:
        """Whether it is shown. A hidden charge only keeps its message from being charged later."""
        return self.rate > 0 and self.message.photos > 0

    @property
    def month(self) -> date:
        return self.day.replace(day=1)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def charges_of(messages: Iterable[Message], time_zone: str, rates: Rates) -> list[Charge]:
    """Return the charges of an organisation for messages in this order."""
    photos_so_far: dict[tuple[str, str, int], int] = defaultdict(int)
    charges = []
    for message in messages:
        rate = rates.millionths(message.usage_type, ai_search=message.ai_search, at=message.occurred_at)
        key = (message.run_id, message.usage_type, rate)
        before = photos_so_far[key]
        after = photos_so_far[key] = before + message.photos
        day = message.occurred_at.astimezone(_zone(time_zone)).date()
        charges.append(Charge(message, rate, _round_up(after * rate) - _round_up(before * rate), day))
    return charges


def _round_up(millionths: int) -> int:
    return -(-millionths // MILLION)


@dataclass
class Statement:
    """The five tables of usage, for one organisation or, after `add`, for many."""

    runs: Table
    months: Table
    days: Table
    events: Table
    event_totals: Table

    @classmethod
    def empty(cls) -> Statement:
        return cls({}, {}, {}, {}, {})

    def add(self, organisation_id: str, charges: Sequence[Charge]) -> None:
        """Add an organisation's charges, in ledger order."""
        runs: dict[str, list[Charge]] = defaultdict(list)
        for charge in charges:
            if charge.counts:
                runs[charge.message.run_id].append(charge)
        months = {run_id: of_run[0].month for run_id, of_run in runs.items()}
        for run_id, of_run in runs.items():
            self.runs[organisation_id, run_id] = _run_row(of_run)
        counted = [(months[charge.message.run_id], charge) for charge in charges if charge.counts]
        self.months |= _sums(counted, lambda month, _: (organisation_id, month), _month_row)
        self.days |= _sums(counted, lambda month, charge: (organisation_id, charge.day, month), _day_row)
        self.events |= _sums(
            counted,
            lambda month, charge: (organisation_id, month, charge.message.event_id),
            _event_row,
        )
        self.event_totals |= _sums(
            counted, lambda _, charge: (organisation_id, charge.message.event_id), _event_row
        )


def _sums(counted: Sequence[tuple[date, Charge]], key_of: Any, row_of: Any) -> Table:
    groups: dict[tuple[Any, ...], list[Charge]] = defaultdict(list)
    for month, charge in counted:
        groups[key_of(month, charge)].append(charge)
    return {key: row_of(group) for key, group in groups.items()}


def _total(charges: Sequence[Charge]) -> Row:
    return {
        "credits": sum(charge.credits for charge in charges),
        "photos": sum(charge.message.photos for charge in charges),
    }


def _run_row(charges: Sequence[Charge]) -> Row:
    first = charges[0].message
    total = _total(charges)
    return {
        "type": "usage",
        "credits": -total["credits"],
        "photos": total["photos"],
        "occurred_at": min(_times(charges)),
        "month": charges[0].month,
        "actor": first.user,
        "usage_types": list(dict.fromkeys(charge.message.usage_type for charge in charges)),
        "event_ids": list(dict.fromkeys(charge.message.event_id for charge in charges)),
        "event_name": first.event_name,
    }


def _month_row(charges: Sequence[Charge]) -> Row:
    return {
        **_total(charges),
        "runs": len({charge.message.run_id for charge in charges}),
        "events": len({charge.message.event_id for charge in charges}),
    }


def _day_row(charges: Sequence[Charge]) -> Row:
    return _total(charges)


def _event_row(charges: Sequence[Charge]) -> Row:
    return {
        **_total(charges),
        "event_name": charges[-1].message.event_name,
        "runs": len({charge.message.run_id for charge in charges}),
        "first_occurred_at": min(_times(charges)),
        "last_occurred_at": max(_times(charges)),
    }


def _times(charges: Sequence[Charge]) -> list[datetime]:
    return [charge.message.occurred_at for charge in charges]
