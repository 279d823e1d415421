"""The Credits page: what is left, where it went, and when to top up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

from fastapi import APIRouter
from starlette.responses import Response

from api.dependencies import Connection
from api.fields import PageCursor
from api.pages import planning, trends, words
from api.pages.charts import Chart, chart_of
from api.pages.freshness import Freshness
from api.pages.page import Shown
from api.pages.routing import PageRoute
from api.subscriptions import Subscription
from projections import views
from projections.recent import Recent, recent
from projections.results import Balance, EventUsage, TransactionKind, TransactionPage, UsageSummary
from projections.top_up_views import AutoTopUpStanding, auto_top_up

CARDS: Final = 4
MONTHS_OF_PRO: Final = 12
DAYS_OF_CHART: Final = 30
ROWS: Final = 25
PHOTOS_MAX: Final = 1_000_000

Tab = Literal["usage", "purchases"]
KINDS: Final = {"usage": TransactionKind.USAGE, "purchases": TransactionKind.ADDITION}

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True)
class Overview:
    """Everything on the page, of one state of the views."""

    balance: Balance
    summary: UsageSummary
    chart: Chart
    recent: Recent
    transactions: TransactionPage
    auto_top_up: AutoTopUpStanding
    trend: trends.Trend
    spike_event: EventUsage | None
    freshness: Freshness
    position: int


@router.get("/credits")
def get_credits(
    page: Shown,
    tab: Tab = "usage",
    cursor: PageCursor = None,
    photos: str = "",
) -> Response:
    """Show the balance, the cards and one of the two lists."""
    seen = page.view(_read, KINDS[tab], cursor, page.services.clock())
    balance, months = seen.balance, seen.summary.months
    expected, photos_fault = _expected_photos(photos)
    prices = page.services.ledger.prices.at(page.services.clock())
    price = balance.price_millionths
    used = sum(month.credits for month in months)
    return page.render(
        "credits.html",
        balance,
        actors=[row.actor for row in seen.transactions.transactions],
        seen=seen,
        cards=months[:CARDS],
        trend=seen.trend,
        change=trends.same_point_change(months[:CARDS]),
        few_runs=max(month.runs for month in months[:CARDS]) <= trends.FEW_RUNS,
        outlier_from=trends.outlier_threshold(seen.recent.run_credits),
        top_up=planning.top_up(
            balance.available, expected, seen.recent.event_credits, price, prices.minimum_credits
        ),
        pro=planning.compare_with_pro(used, price, balance.currency, prices),
        tax_per_cent=prices.of(balance.currency).tax_per_cent,
        subscription=Subscription.of(balance, page.services.clock()),
        held_back=seen.auto_top_up.held_back(page.services.clock()),
        photos=photos,
        photos_fault=photos_fault,
        tab=tab,
        is_first_page=cursor is None,
        words=words,
    )


def _read(
    connection: Connection, organisation_id: str, kind: TransactionKind, cursor: str | None, now: datetime
) -> Overview:
    balance = views.balance(connection, organisation_id)
    summary = views.usage_summary(connection, organisation_id, MONTHS_OF_PRO, now)
    first_day = summary.today - timedelta(days=DAYS_OF_CHART - 1)
    daily = views.daily_usage(connection, organisation_id, first_day, summary.today)
    trend = trends.read_trend(summary.months[:CARDS])
    positions = views.positions(connection)
    return Overview(
        balance,
        summary,
        chart_of(daily.days),
        recent(connection, organisation_id),
        views.transactions(connection, organisation_id, kind, cursor, ROWS),
        auto_top_up(connection, organisation_id),
        trend,
        _most_expensive(connection, organisation_id, trend.month) if trend.month else None,
        Freshness.of(positions, now),
        positions.position,
    )


def _most_expensive(connection: Connection, organisation_id: str, month: date) -> EventUsage | None:
    events = views.event_usage(connection, organisation_id, month, None, 1).events
    return events[0] if events else None


def _expected_photos(text: str) -> tuple[int | None, str]:
    """Return the photos typed in, and what is wrong with them."""
    cleaned = text.replace(",", "").replace(" ", "")
    if not cleaned:
        return None, ""
    is_number = cleaned.isascii() and cleaned.isdecimal() and len(cleaned) <= len(str(PHOTOS_MAX))
    if not is_number or not 1 <= int(cleaned) <= PHOTOS_MAX:
        return None, f"Enter a whole number of photos, from 1 to {PHOTOS_MAX:,}."
    return int(cleaned), ""
