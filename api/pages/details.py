"""What a number opens to: a month to events, an event to runs, a run to charges, the balance to lots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from api.dependencies import Connection
from api.fields import Month, PageCursor
from api.pages import words
from api.pages.freshness import Freshness
from api.pages.page import Shown
from api.pages.routing import PageRoute
from api.problems import HttpProblem
from domain.calendar import local_day
from domain.credits import LotKind
from domain.ledger import Ledger
from domain.money import MILLIONTHS_PER_MINOR_UNIT, divide_half_up
from projections import views
from projections.details import event_details, lot_origins, run_details
from projections.holds import HoldStatus
from projections.results import (
    Balance,
    EventDetails,
    EventUsagePage,
    HoldList,
    MonthUsage,
    PurchaseDetails,
    RunDetails,
    Transaction,
)

EVENTS: Final = 50
RUNS: Final = 100
CHARGES: Final = 100
HOLDS: Final = 50

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_EventId = Annotated[int, Path(ge=0, le=2**53 - 1)]
_RunId = Annotated[str, Query(min_length=1, max_length=128)]


@dataclass(frozen=True)
class _Month:
    balance: Balance
    card: MonthUsage
    page: EventUsagePage
    position: int


@dataclass(frozen=True)
class _Event:
    balance: Balance
    details: EventDetails
    freshness: Freshness
    position: int


@dataclass(frozen=True)
class _Run:
    balance: Balance
    details: RunDetails
    position: int


@dataclass(frozen=True)
class _Standing:
    balance: Balance
    holds: HoldList
    lots: dict[int, Transaction]
    freshness: Freshness
    position: int


@router.get("/credits/months/{month}")
def get_month(page: Shown, month: Month, cursor: PageCursor = None) -> Response:
    """Show the photo events of a month, the most expensive first."""
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _Month:
        summary = views.usage_summary(connection, organisation_id, views.MONTHS_MAX, now)
        card = next((each for each in summary.months if each.month == month), None)
        if card is None:
            raise HttpProblem("not-found", "cards go back three years")
        events = views.event_usage(connection, organisation_id, month, cursor, EVENTS)
        return _Month(views.balance(connection, organisation_id), card, events, events.position)

    seen = page.view(read)
    return page.render("month.html", seen.balance, seen=seen, is_first_page=cursor is None)


@router.get("/credits/events/{event_id}")
def get_event(page: Shown, event_id: _EventId, cursor: PageCursor = None) -> Response:
    """Show what a photo event cost: by month, type and day, and run by run."""
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _Event:
        details = event_details(connection, organisation_id, event_id, cursor, RUNS)
        positions = views.positions(connection)
        balance = views.balance(connection, organisation_id)
        return _Event(balance, details, Freshness.of(positions, now), details.position)

    seen = page.view(read)
    runs = seen.details.runs
    return page.render(
        "event.html",
        seen.balance,
        actors=[run.actor for run in runs],
        seen=seen,
        by_type=_sums((words.usage_types(run.usage_types), run) for run in runs),
        by_day=_by_day(runs, seen.balance.time_zone),
        is_first_page=cursor is None,
        words=words,
    )


@router.get("/credits/runs")
def get_run(page: Shown, run: _RunId, cursor: PageCursor = None) -> Response:
    """Show why a run cost what it did: photos, rate, lots and their prices, hold."""

    def read(connection: Connection, organisation_id: str) -> _Run:
        details = run_details(connection, organisation_id, run, cursor, CHARGES)
        return _Run(views.balance(connection, organisation_id), details, details.position)

    seen = page.view(read)
    return page.render(
        "run.html",
        seen.balance,
        actors=[seen.details.run.actor],
        seen=seen,
        run=seen.details.run,
        spent_minor=_spent_minor(seen.details),
        is_whole=cursor is None and seen.details.next_cursor is None,
        words=words,
    )


@router.get("/credits/balance")
def get_balance(page: Shown) -> Response:
    """Show what the balance consists of: what came and went, the lots that are left, and open holds."""
    organisation, _ = page.history(Ledger.organisation)
    numbers = {lot.number for lot in organisation.lots}
    now = page.services.clock()

    def read(connection: Connection, organisation_id: str) -> _Standing:
        holds = views.holds(connection, organisation_id, HoldStatus.OPEN, HOLDS)
        return _Standing(
            views.balance(connection, organisation_id),
            holds,
            lot_origins(connection, organisation_id, numbers),
            Freshness.of(views.positions(connection), now),
            holds.position,
        )

    seen = page.view(read)
    return page.render(
        "balance.html",
        seen.balance,
        seen=seen,
        organisation=organisation,
        is_free=lambda lot: lot.kind is LotKind.FREE,
        words=words,
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
    for portion in (portion for charge in details.charges for portion in charge.draws):
        origin = details.lots.get(portion.lot)
        if origin is not None and isinstance(origin.details, PurchaseDetails):
            spent_millionths += portion.credits * origin.details.unit_price_millionths
    return divide_half_up(spent_millionths, MILLIONTHS_PER_MINOR_UNIT)
