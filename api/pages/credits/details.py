"""Detail pages: events of a month, runs of an event, charges of a run, lots of the balance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from api.http.fields import Month, PageCursor
from api.http.problems import HttpProblem
from api.pages.shell import labels
from api.pages.shell.freshness import Freshness
from api.pages.shell.page import PageDep
from api.pages.shell.routing import PageRoute
from domain.credits.ledger import Ledger
from domain.credits.lots import LotKind
from domain.shared.calendar import local_day
from domain.shared.money import MILLIONTHS_PER_MINOR_UNIT, divide_half_up
from projections.connection import Connection
from projections.credits import queries as credit_queries
from projections.credits.detail_queries import additions_by_lot, event_details, run_details
from projections.credits.holds import HoldStatus
from projections.credits.read_models import (
    Balance,
    HoldList,
    MonthUsage,
    PhotoEventDetails,
    PhotoEventUsagePage,
    PurchaseDetails,
    RunDetails,
    Transaction,
)

EVENT_ROWS: Final = 50
RUN_ROWS: Final = 100
CHARGE_ROWS: Final = 100
HOLD_ROWS: Final = 50

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_EventId = Annotated[int, Path(ge=0, le=2**53 - 1)]
_RunId = Annotated[str, Query(min_length=1, max_length=128)]


@dataclass(frozen=True)
class _MonthData:
    balance: Balance
    card: MonthUsage
    page: PhotoEventUsagePage
    position: int


@dataclass(frozen=True)
class _EventData:
    balance: Balance
    details: PhotoEventDetails
    freshness: Freshness
    position: int


@dataclass(frozen=True)
class _RunData:
    balance: Balance
    details: RunDetails
    position: int


@dataclass(frozen=True)
class _BalanceData:
    balance: Balance
    holds: HoldList
    lots: dict[int, Transaction]
    freshness: Freshness
    position: int


@router.get("/credits/months/{month}")
def get_month(page: PageDep, month: Month, cursor: PageCursor = None) -> Response:
    """Show the photo events of a month, most credits first."""
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _MonthData:
        summary = credit_queries.usage_summary(connection, organisation_id, credit_queries.MONTHS_MAX, now)
        card = next((each for each in summary.months if each.month == month), None)
        if card is None:
            raise HttpProblem("not-found", "months are available for three years")
        events = credit_queries.event_usage(connection, organisation_id, month, cursor, EVENT_ROWS)
        return _MonthData(credit_queries.balance(connection, organisation_id), card, events, events.position)

    data = page.view(read)
    return page.render("month.html", data.balance, data=data, is_first_page=cursor is None)


@router.get("/credits/events/{event_id}")
def get_event(page: PageDep, event_id: _EventId, cursor: PageCursor = None) -> Response:
    """Show the usage of a photo event by month, by type, by day and by run."""
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _EventData:
        details = event_details(connection, organisation_id, event_id, cursor, RUN_ROWS)
        positions = credit_queries.positions(connection)
        balance = credit_queries.balance(connection, organisation_id)
        return _EventData(balance, details, Freshness.of(positions, now), details.position)

    data = page.view(read)
    runs = data.details.runs
    return page.render(
        "event.html",
        data.balance,
        actors=[run.actor for run in runs],
        data=data,
        by_type=_sums((labels.usage_types(run.usage_types), run) for run in runs),
        by_day=_by_day(runs, data.balance.time_zone),
        is_first_page=cursor is None,
        words=labels,
    )


@router.get("/credits/runs")
def get_run(page: PageDep, run: _RunId, cursor: PageCursor = None) -> Response:
    """Show how the cost of a run was calculated: photos, rate, lots with their prices, hold."""

    def read(connection: Connection, organisation_id: str) -> _RunData:
        details = run_details(connection, organisation_id, run, cursor, CHARGE_ROWS)
        return _RunData(credit_queries.balance(connection, organisation_id), details, details.position)

    data = page.view(read)
    return page.render(
        "run.html",
        data.balance,
        actors=[data.details.run.actor],
        data=data,
        run=data.details.run,
        spent_minor=_spent_minor(data.details),
        is_whole=cursor is None and data.details.next_cursor is None,
        words=labels,
    )


@router.get("/credits/balance")
def get_balance(page: PageDep) -> Response:
    """Show the composition of the balance: additions and usage, remaining lots, and open holds."""
    organisation, _ = page.history(Ledger.organisation)
    numbers = {lot.number for lot in organisation.lots}
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _BalanceData:
        holds = credit_queries.holds(connection, organisation_id, HoldStatus.OPEN, HOLD_ROWS)
        return _BalanceData(
            credit_queries.balance(connection, organisation_id),
            holds,
            additions_by_lot(connection, organisation_id, numbers),
            Freshness.of(credit_queries.positions(connection), now),
            holds.position,
        )

    data = page.view(read)
    return page.render(
        "balance.html",
        data.balance,
        data=data,
        organisation=organisation,
        is_free=lambda lot: lot.kind is LotKind.FREE,
        words=labels,
    )


def _sums(named: Iterable[tuple[str, Transaction]]) -> list[tuple[str, int, int]]:
    """Return (name, runs, credits) per name, most credits first."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, run in named:
        sums[name][0] += 1
        sums[name][1] -= run.credits
    return sorted(
        ((name, runs, used) for name, (runs, used) in sums.items()), key=lambda each: each[2], reverse=True
    )


def _by_day(runs: Iterable[Transaction], time_zone: str) -> list[tuple[date, int, int]]:
    """Return (day, runs, credits) per day, latest day first."""
    sums: defaultdict[date, list[int]] = defaultdict(lambda: [0, 0])
    for run in runs:
        day = local_day(time_zone, run.occurred_at)
        sums[day][0] += 1
        sums[day][1] -= run.credits
    return sorted(((day, count, used) for day, (count, used) in sums.items()), reverse=True)


def _spent_minor(details: RunDetails) -> int:
    """Return the purchase price of the charged credits, in minor units. Free credits cost nothing."""
    spent_millionths = 0
    for allocation in (allocation for charge in details.charges for allocation in charge.draws):
        origin = details.lots.get(allocation.lot)
        if origin is not None and isinstance(origin.details, PurchaseDetails):
            spent_millionths += allocation.credits * origin.details.unit_price_millionths
    return divide_half_up(spent_millionths, MILLIONTHS_PER_MINOR_UNIT)
