"""The Subscription page: the plan, its description and its expiry."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from api.credits.subscription import Subscription
from api.pages.credits import recommendations
from api.pages.shell.page import PageDep
from api.pages.shell.routing import PageRoute
from projections.credits import queries as credit_queries

MONTHS: Final = 12

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/credits/subscription")
def get_subscription(page: PageDep) -> Response:
    """Show the plan."""
    now = page.services.clock()
    balance = page.view(credit_queries.balance)
    summary = page.view(credit_queries.usage_summary, MONTHS, now)
    prices = page.services.ledger.prices.at(now)
    used = sum(month.credits for month in summary.months)
    return page.render(
        "subscription.html",
        balance,
        subscription=Subscription.of(balance, now),
        prices=prices.of(balance.currency),
        pro=recommendations.compare_with_pro(used, balance.price_millionths, balance.currency, prices),
    )
