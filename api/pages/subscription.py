"""The Subscription tab: the plan, what it means, and when it ends."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from api.pages import planning
from api.pages.page import Shown
from api.pages.routing import PageRoute
from api.subscriptions import Subscription
from projections import views

MONTHS: Final = 12

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credits/subscription")
def get_subscription(page: Shown) -> Response:
    """Show the plan."""
    now = page.services.clock()
    balance = page.view(views.balance)
    summary = page.view(views.usage_summary, MONTHS, now)
    prices = page.services.ledger.prices.at(now)
    used = sum(month.credits for month in summary.months)
    return page.render(
        "subscription.html",
        balance,
        subscription=Subscription.of(balance, now),
        prices=prices.of(balance.currency),
        pro=planning.compare_with_pro(used, balance.price_millionths, balance.currency, prices),
    )
