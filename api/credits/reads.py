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
            description="Answer as the ledger knew it at this moment: all it had recorded by then, whenever"
            " it happened. Recorded times of an organisation never go back, so the answer for a moment stays"
            " what it is; only one of the last seconds may still gain an event that was being written.",
            examples=["2026-11-22T09:15:00Z"],
        ),
    ] = None,
) -> credit_schemas.Balance:
    """What the organisation has and the terms it is on: now, or at any moment since it was opened.

    Processing is paused while nothing is available. The answer for a moment comes from the history itself.
    """
    if as_of is None:
        standing = read.view(credit_queries.balance, organisation_id)
        return credit_schemas.Balance.of(standing, position=standing.position)
    if as_of > read.services.clock():
        raise invalid("as_of", "the moment lies in the future")
    then, position = read.history(Ledger.organisation_as_of, organisation_id, as_of)
    return credit_schemas.Balance.of(then, position=position, as_of=as_of)


@router.get(
    "/usage-summary",
    operation_id="getUsageSummary",
    summary="Usage by month",
    tags=["Usage"],
    response_description="One card a month.",
)
def get_usage_summary(
    organisation_id: OrganisationId,
    read: Read,
    months: Annotated[
        int, Query(ge=1, le=36, description="How many months, the current one included.", examples=[4])
    ] = 4,
) -> credit_schemas.UsageSummary:
    """Credits, runs, photos and photo events of the current month and the ones before.

    A run counts in the month of its first charge, in the organisation's zone; refunds never lower a month.
    Usage dated in the future counts in its own month, and shows up here when that month comes.
    """
    summary = read.view(credit_queries.usage_summary, organisation_id, months, read.services.clock())
    return credit_schemas.UsageSummary.model_validate(summary)


@router.get(
    "/daily-usage",
    operation_id="getDailyUsage",
    summary="Usage by day",
    tags=["Usage"],
    response_description="One entry a day.",
)
def get_daily_usage(
    organisation_id: OrganisationId,
    read: Read,
    from_day: Annotated[Day, Query(alias="from", description="The first day.", examples=["2026-11-01"])],
    to_day: Annotated[
        Day, Query(alias="to", description="The last day; 366 days at most.", examples=["2026-11-30"])
    ],
) -> credit_schemas.DailyUsage:
    """Credits and photos of every day of a range, by when the usage happened."""
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
        Query(description="Usage or additions only; both without it.", examples=["usage"]),
    ] = None,
    cursor: PageCursor = None,
    limit: PageLimit = DEFAULT_PAGE_LIMIT,
) -> credit_schemas.TransactionPage:
    """Runs and additions, newest first. A run is one transaction, however many messages reported it."""
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
    """The single charges of a run. A refund names a charge by its `version`.

    A page may be short, even empty, and still have a `next_cursor`: go on until it is null.
    """
    page = read.view(credit_queries.transaction_charges, organisation_id, run_id, cursor, limit)
    names = read.services.people.names([each.actor for each in page.charges])
    return credit_schemas.ChargePage.of(page, names)


@router.get(
    "/events",
    operation_id="listPhotoEvents",
    summary="Usage by photo event",
    tags=["Usage"],
    response_description="A page, the most expensive first.",
)
def list_photo_events(
    organisation_id: OrganisationId,
    read: Read,
    month: Annotated[
        Month | None, Query(description="A month of the organisation's zone; all time without it.")
    ] = None,
    cursor: PageCursor = None,
    limit: PageLimit = DEFAULT_PAGE_LIMIT,
) -> credit_schemas.EventUsagePage:
    """What each photo event used, the most expensive first."""
    page = read.view(credit_queries.event_usage, organisation_id, month, cursor, limit)
    return credit_schemas.EventUsagePage.model_validate(page)


@router.get(
    "/subscription",
    operation_id="getSubscription",
    summary="Subscription",
    tags=["Credits"],
    response_description="The plan and its end.",
)
def get_subscription(organisation_id: OrganisationId, read: Read) -> Subscription:
    """The plan, what it means, and when it ends."""
    return Subscription.of(read.view(credit_queries.balance, organisation_id), read.services.clock())
