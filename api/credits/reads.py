"""Reads of an organisation: balance, usage, transactions, photo events, subscription."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.credits import schemas as credit_schemas
from api.credits.subscription import Subscription
from api.http.dependencies import Read
from api.http.fields import Day, Instant, Month, OrganisationId, PageCursor, PageLimit, RunId
from api.http.problems import invalid, responses
from api.http.responses import COMMON_PROBLEMS, DEFAULT_PAGE_LIMIT, read_responses
from api.http.routes import ReadRoute
from domain.credits.ledger import Ledger
from projections.credits import queries as credit_queries
from projections.credits.read_models import TransactionKind

router = APIRouter(
    prefix="/v1/organisations/{organisation_id}",
    route_class=ReadRoute,
    responses={**read_responses(), **responses(*COMMON_PROBLEMS)},
)


@router.get(
    "/balance",
    operation_id="getBalance",
    summary="Balance",
    tags=["Credits"],
    response_description="The balance and the terms.",
)
def get_balance(
    organisation_id: OrganisationId,
    read: Read,
    as_of: Annotated[
        Instant | None,
        Query(
            description="Return the balance as it was recorded at this time: every event that was recorded up"
            " to then, whenever the usage happened. Recorded times of an organisation never decrease, so the"
            " response for a past time does not change. Within the last seconds, an event that is still being"
            " written may be added.",
            examples=["2026-11-22T09:15:00Z"],
        ),
    ] = None,
) -> credit_schemas.Balance:
    """Return the organisation's credits and terms: now, or at any time since it was opened.

    Processing is paused while no credits are available. A response for a past time replays the event history.
    """
    if as_of is None:
        balance = read.view(credit_queries.balance, organisation_id)
        return credit_schemas.Balance.of(balance, position=balance.position)
    if as_of > read.services.clock():
        raise invalid("as_of", "the time is in the future")
    organisation, position = read.history(Ledger.organisation_as_of, organisation_id, as_of)
    return credit_schemas.Balance.of(organisation, position=position, as_of=as_of)


@router.get(
    "/usage-summary",
    operation_id="getUsageSummary",
    summary="Usage by month",
    tags=["Usage"],
    response_description="One entry per month.",
)
def get_usage_summary(
    organisation_id: OrganisationId,
    read: Read,
    months: Annotated[
        int, Query(ge=1, le=36, description="Number of months, including the current one.", examples=[4])
    ] = 4,
) -> credit_schemas.UsageSummary:
    """Return credits, runs, photos and photo events of the current month and of the months before it.

    A run counts in the month of its first charge, in the organisation's time zone. Refunds never lower a
    month. Usage with a future date counts in its own month, which is listed when it begins.
    """
    summary = read.view(credit_queries.usage_summary, organisation_id, months, read.services.clock())
    return credit_schemas.UsageSummary.model_validate(summary)


@router.get(
    "/daily-usage",
    operation_id="getDailyUsage",
    summary="Usage by day",
    tags=["Usage"],
    response_description="One entry per day.",
)
def get_daily_usage(
    organisation_id: OrganisationId,
    read: Read,
    from_day: Annotated[Day, Query(alias="from", description="The first day.", examples=["2026-11-01"])],
    to_day: Annotated[
        Day, Query(alias="to", description="The last day; 366 days at most.", examples=["2026-11-30"])
    ],
) -> credit_schemas.DailyUsage:
    """Return credits and photos of every day of a range. The time of the usage decides the day."""
    if not 0 <= (to_day - from_day).days < credit_queries.DAYS_MAX:
        raise invalid("to", f"a range has 1 to {credit_queries.DAYS_MAX} days")
    usage = read.view(credit_queries.daily_usage, organisation_id, from_day, to_day)
    return credit_schemas.DailyUsage.model_validate(usage)


@router.get(
    "/transactions",
    operation_id="listTransactions",
    summary="Transactions",
    tags=["Transactions"],
    response_description="A page, newest first.",
)
def list_transactions(
    organisation_id: OrganisationId,
    read: Read,
    kind: Annotated[
        TransactionKind | None,
        Query(description="Only usage, or only additions. Default: both.", examples=["usage"]),
    ] = None,
    cursor: PageCursor = None,
    limit: PageLimit = DEFAULT_PAGE_LIMIT,
) -> credit_schemas.TransactionPage:
    """List runs and additions, newest first.

    A run is one transaction, even if several messages reported it.
    """
    page = read.view(credit_queries.transactions, organisation_id, kind, cursor, limit)
    names = read.services.people.names([each.actor for each in page.transactions])
    return credit_schemas.TransactionPage.of(page, names)


@router.get(
    "/transactions/{run_id}/charges",
    operation_id="listCharges",
    summary="Charges of a run",
    tags=["Transactions"],
    response_description="A page, in ledger order.",
    responses=responses("organisation-unknown", "run-unknown"),
)
def list_charges(
    organisation_id: OrganisationId,
    run_id: RunId,
    read: Read,
    cursor: PageCursor = None,
    limit: PageLimit = DEFAULT_PAGE_LIMIT,
) -> credit_schemas.ChargePage:
    """List the charges of a run. A refund identifies a charge by its `version`.

    A page may be short or empty and still have a `next_cursor`: continue until it is null.
    """
    page = read.view(credit_queries.transaction_charges, organisation_id, run_id, cursor, limit)
    names = read.services.people.names([each.actor for each in page.charges])
    return credit_schemas.ChargePage.of(page, names)


@router.get(
    "/events",
    operation_id="listPhotoEvents",
    summary="Usage by photo event",
    tags=["Usage"],
    response_description="A page, most credits first.",
)
def list_photo_events(
    organisation_id: OrganisationId,
    read: Read,
    month: Annotated[
        Month | None, Query(description="A month in the organisation's time zone. Default: all time.")
    ] = None,
    cursor: PageCursor = None,
    limit: PageLimit = DEFAULT_PAGE_LIMIT,
) -> credit_schemas.EventUsagePage:
    """List the usage of each photo event, most credits first."""
    page = read.view(credit_queries.event_usage, organisation_id, month, cursor, limit)
    return credit_schemas.EventUsagePage.model_validate(page)


@router.get(
    "/subscription",
    operation_id="getSubscription",
    summary="Subscription",
    tags=["Credits"],
    response_description="The plan and its expiry.",
)
def get_subscription(organisation_id: OrganisationId, read: Read) -> Subscription:
    """Return the plan, its description, and its expiry."""
    return Subscription.of(read.view(credit_queries.balance, organisation_id), read.services.clock())
