"""The Credits page: available credits, usage, and when to top up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

from fastapi import APIRouter
from starlette.responses import Response

from api.credits.subscription import Subscription
from api.http.fields import PageCursor
from api.pages.credits import recommendations, trends
from api.pages.credits.charts import Chart, chart_of
from api.pages.shell import labels
from api.pages.shell.freshness import Freshness
from api.pages.shell.page import PageDep
from api.pages.shell.routing import PageRoute
from projections.connection import Connection
from projections.credits import queries as credit_queries
from projections.credits.auto_top_up_queries import AutoTopUpStatus, auto_top_up
from projections.credits.read_models import (
    Balance,
    PhotoEventUsage,
    TransactionKind,
    TransactionPage,
    UsageSummary,
)
from projections.credits.usage_baseline import UsageBaseline, usage_baseline

MONTH_CARDS: Final = 4
MONTHS_OF_PRO: Final = 12
DAYS_OF_CHART: Final = 30
ROWS: Final = 25
PHOTOS_MAX: Final = 1_000_000

Tab = Literal["usage", "purchases"]
KINDS: Final = {"usage": TransactionKind.USAGE, "purchases": TransactionKind.ADDITION}

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True)
class Overview:
    """All data of the page, from one repeatable-read snapshot."""

    balance: Balance
    summary: UsageSummary
    chart: Chart
    usage_baseline: UsageBaseline
    transactions: TransactionPage
    auto_top_up: AutoTopUpStatus
    trend: trends.Trend
    spike_event: PhotoEventUsage | None
    freshness: Freshness
    position: int


@router.get("/credits")
def get_credits(
    page: PageDep,
    tab: Tab = "usage",
    cursor: PageCursor = None,
    photos: str = "",
) -> Response:
    """Show the balance, the monthly cards and one of the two lists."""
    data = page.view(_read, KINDS[tab], cursor, page.services.clock())
    balance, months = data.balance, data.summary.months
    expected, photos_error = _expected_photos(photos)
    prices = page.services.ledger.prices.at(page.services.clock())
    price = balance.price_millionths
    used = sum(month.credits for month in months)
    return page.render(
        "credits.html",
        balance,
        actors=[row.actor for row in data.transactions.transactions],
        data=data,
        cards=months[:MONTH_CARDS],
        trend=data.trend,
        change=trends.same_point_change(months[:MONTH_CARDS]),
        few_runs=max(month.runs for month in months[:MONTH_CARDS]) <= trends.FEW_RUNS,
        outlier_from=trends.outlier_threshold(data.usage_baseline.run_credits),
        top_up=recommendations.top_up(
            balance.available, expected, data.usage_baseline.event_credits, price, prices.minimum_credits
        ),
        pro=recommendations.compare_with_pro(used, price, balance.currency, prices),
        tax_per_cent=prices.of(balance.currency).tax_per_cent,
        subscription=Subscription.of(balance, page.services.clock()),
        held_back=data.auto_top_up.held_reason_at(page.services.clock()),
        photos=photos,
        photos_error=photos_error,
        tab=tab,
        is_first_page=cursor is None,
        words=labels,
    )


def _read(
    connection: Connection, organisation_id: str, kind: TransactionKind, cursor: str | None, now: datetime
) -> Overview:
    balance = credit_queries.balance(connection, organisation_id)
    summary = credit_queries.usage_summary(connection, organisation_id, MONTHS_OF_PRO, now)
    first_day = summary.today - timedelta(days=DAYS_OF_CHART - 1)
    daily = credit_queries.daily_usage(connection, organisation_id, first_day, summary.today)
    trend = trends.read_trend(summary.months[:MONTH_CARDS])
    positions = credit_queries.positions(connection)
    return Overview(
        balance,
        summary,
        chart_of(daily.days),
        usage_baseline(connection, organisation_id),
        credit_queries.transactions(connection, organisation_id, kind, cursor, ROWS),
        auto_top_up(connection, organisation_id),
        trend,
        _most_expensive(connection, organisation_id, trend.month) if trend.month else None,
        Freshness.of(positions, now),
        positions.position,
    )


def _most_expensive(connection: Connection, organisation_id: str, month: date) -> PhotoEventUsage | None:
    events = credit_queries.event_usage(connection, organisation_id, month, None, 1).events
    return events[0] if events else None


def _expected_photos(text: str) -> tuple[int | None, str]:
    """Return the number of photos, or None, and an error message."""
    cleaned = text.replace(",", "").replace(" ", "")
    if not cleaned:
        return None, ""
    is_number = cleaned.isascii() and cleaned.isdecimal() and len(cleaned) <= len(str(PHOTOS_MAX))
    if not is_number or not 1 <= int(cleaned) <= PHOTOS_MAX:
        return None, f"Enter a whole number of photos, from 1 to {PHOTOS_MAX:,}."
    return int(cleaned), ""
