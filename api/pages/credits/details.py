"""What a number opens to: a month to events, an event to runs, a run to charges, the balance to lots."""

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
from projections.credits.detail_queries import event_details, lot_origins, run_details
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
    """Show the photo events of a month, the most expensive first."""
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _MonthData:
        summary = credit_queries.usage_summary(connection, organisation_id, credit_queries.MONTHS_MAX, now)
        card = next((each for each in summary.months if each.month == month), None)
        if card is None:
            raise HttpProblem("not-found", "cards go back three years")
        events = credit_queries.event_usage(connection, organisation_id, month, cursor, EVENT_ROWS)
        return _MonthData(credit_queries.balance(connection, organisation_id), card, events, events.position)

    seen = page.view(read)
    return page.render("month.html", seen.balance, seen=seen, is_first_page=cursor is None)


@router.get("/credits/events/{event_id}")
def get_event(page: PageDep, event_id: _EventId, cursor: PageCursor = None) -> Response:
    """Show what a photo event cost: by month, type and day, and run by run."""
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _EventData:
        details = event_details(connection, organisation_id, event_id, cursor, RUN_ROWS)
        positions = credit_queries.positions(connection)
        balance = credit_queries.balance(connection, organisation_id)
        return _EventData(balance, details, Freshness.of(positions, now), details.position)

    seen = page.view(read)
    runs = seen.details.runs
    return page.render(
        "event.html",
        seen.balance,
        actors=[run.actor for run in runs],
        seen=seen,
        by_type=_sums((labels.usage_types(run.usage_types), run) for run in runs),
        by_day=_by_day(runs, seen.balance.time_zone),
        is_first_page=cursor is None,
        words=labels,
    )


@router.get("/credits/runs")
def get_run(page: PageDep, run: _RunId, cursor: PageCursor = None) -> Response:
    """Show why a run cost what it did: photos, rate, lots and their prices, hold."""

    def read(connection: Connection, organisation_id: str) -> _RunData:
        details = run_details(connection, organisation_id, run, cursor, CHARGE_ROWS)
        return _RunData(credit_queries.balance(connection, organisation_id), details, details.position)

    seen = page.view(read)
    return page.render(
        "run.html",
        seen.balance,
        actors=[seen.details.run.actor],
        seen=seen,
        run=seen.details.run,
        spent_minor=_spent_minor(seen.details),
        is_whole=cursor is None and seen.details.next_cursor is None,
        words=labels,
    )


@router.get("/credits/balance")
def get_balance(page: PageDep) -> Response:
    """Show what the balance consists of: what came and went, the lots that are left, and open holds."""
    organisation, _ = page.history(Ledger.organisation)
    numbers = {lot.number for lot in organisation.lots}
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _BalanceData:
        holds = credit_queries.holds(connection, organisation_id, HoldStatus.OPEN, HOLD_ROWS)
        return _BalanceData(
            credit_queries.balance(connection, organisation_id),
            holds,
            lot_origins(connection, organisation_id, numbers),
            Freshness.of(credit_queries.positions(connection), now),
            holds.position,
        )

    seen = page.view(read)
    return page.render(
        "balance.html",
        seen.balance,
        seen=seen,
        organisation=organisation,
        is_free=lambda lot: lot.kind is LotKind.FREE,
        words=labels,
    )


def _sums(named: Iterable[tuple[str, Transaction]]) -> list[tuple[str, int, int]]:
    """Return name, runs and credits, the most credits first."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, run in named:
        sums[name][0] += 1
        sums[name][1] -= run.credits
    return sorted(
        ((name, runs, used) for name, (runs, used) in sums.items()), key=lambda each: each[2], reverse=True
    )


def _by_day(runs: Iterable[Transaction], time_zone: str) -> list[tuple[date, int, int]]:
    """Return day, runs and credits, the latest day first."""
    sums: defaultdict[date, list[int]] = defaultdict(lambda: [0, 0])
    for run in runs:
        day = local_day(time_zone, run.occurred_at)
        sums[day][0] += 1
        sums[day][1] -= run.credits
    return sorted(((day, count, used) for day, (count, used) in sums.items()), reverse=True)


def _spent_minor(details: RunDetails) -> int:
    """Return what the credits of the charges were bought for, in minor units; free ones cost nothing."""
    spent_millionths = 0
    for allocation in (allocation for charge in details.charges for allocation in charge.draws):
        origin = details.lots.get(allocation.lot)
        if origin is not None and isinstance(origin.details, PurchaseDetails):
            spent_millionths += allocation.credits * origin.details.unit_price_millionths
    return divide_half_up(spent_millionths, MILLIONTHS_PER_MINOR_UNIT)
