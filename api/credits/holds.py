"""Holds and quotes: the pipeline requests them before a run, and settles the hold after it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query

from api.credits import hold_schemas as schemas
from api.http.dependencies import Read, Write
from api.http.fields import HoldId, OrganisationId, PageLimit
from api.http.problems import invalid, responses
from api.http.responses import COMMON_PROBLEMS, DEFAULT_PAGE_LIMIT, read_responses, write_responses
from api.http.routes import ReadRoute, StrictRoute
from domain.credits import hold_commands
from domain.credits.holds import HoldRequest, check_requested_photos
from domain.pricing.rate_card import RateCard, credits_for
from projections.credits import queries as credit_queries
from projections.credits.holds import HoldStatus

_PREFIX: Final = "/v1/organisations/{organisation_id}"

writes = APIRouter(prefix=_PREFIX, route_class=StrictRoute)
reads = APIRouter(
    prefix=_PREFIX, route_class=ReadRoute, responses={**read_responses(), **responses(*COMMON_PROBLEMS)}
)


@writes.post(
    "/holds",
    operation_id="placeHold",
    summary="Place a hold",
    tags=["Holds"],
    status_code=201,
    response_description="The hold is placed.",
    responses=write_responses(
        201, "organisation-unknown", "insufficient-credits", "hold-conflict", "hold-closed"
    ),
)
def place_hold(
    organisation_id: OrganisationId, body: schemas.PlaceHold, write: Write
) -> schemas.HoldRecorded:
    """Reserve credits for a run before it starts, so that no other run can spend them.

    Request `credits`, or `photos` of a `usage_type`. Usage messages that name the hold draw on it first.
    Settle the hold when the run ends. Otherwise it expires, and later usage is charged to available credits.
    """
    photo_event = body.event
    hold_request = HoldRequest(
        body.run_id,
        requested_credits(body, write.services.rates, write.request.at),
        body.mode,
        body.usage_type,
        body.photos,
        body.ai_search,
        0 if photo_event is None else photo_event.id,
        "" if photo_event is None else photo_event.name,
        body.user,
    )
    result = write.services.holds.place_hold(
        organisation_id,
        hold_request,
        duration=timedelta(seconds=body.expires_in_s),
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    write.set_headers(result)
    return schemas.HoldRecorded.of(result)


@writes.post(
    "/holds/{hold_id}/settle",
    operation_id="settleHold",
    summary="Settle a hold",
    tags=["Holds"],
    response_description="The hold is settled.",
    responses=write_responses(200, "organisation-unknown", "hold-unknown", "hold-closed"),
)
def settle_hold(
    organisation_id: OrganisationId, hold_id: HoldId, body: schemas.SettleHold, write: Write
) -> schemas.HoldRecorded:
    """Settle the hold of a run with the total number of photos that were processed successfully.

    Photos that no message has reported yet are charged now. Later messages about them cost nothing. The rest
    of the hold is released. A total below the photos that messages reported returns no credits: refund the
    charges instead.
    """
    result = write.services.holds.settle_hold(
        organisation_id,
        hold_id,
        body.photos,
        usage_type=body.usage_type,
        rates=write.services.rates,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body, part=hold_id),
    )
    write.set_headers(result)
    return schemas.HoldRecorded.of(result)


@writes.post(
    "/holds/{hold_id}/release",
    operation_id="releaseHold",
    summary="Release a hold",
    tags=["Holds"],
    response_description="The hold is released.",
    responses=write_responses(200, "organisation-unknown", "hold-unknown", "hold-closed"),
)
def release_hold(
    organisation_id: OrganisationId, hold_id: HoldId, body: schemas.ReleaseHold, write: Write
) -> schemas.HoldRecorded:
    """Release the remaining credits of a hold. Charges that used the hold stay."""
    result = write.services.holds.release_hold(
        organisation_id,
        hold_id,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body, part=hold_id),
    )
    write.set_headers(result)
    return schemas.HoldRecorded.of(result)


@reads.get(
    "/holds",
    operation_id="listHolds",
    summary="Holds",
    tags=["Holds"],
    response_description="The latest holds.",
)
def list_holds(
    organisation_id: OrganisationId,
    read: Read,
    status: Annotated[
        HoldStatus | None, Query(description="Only holds with this status.", examples=["open"])
    ] = None,
    limit: PageLimit = DEFAULT_PAGE_LIMIT,
) -> schemas.HoldList:
    """List the latest holds, newest first."""
    return schemas.HoldList.model_validate(read.view(credit_queries.holds, organisation_id, status, limit))


@reads.get(
    "/holds/{hold_id}",
    operation_id="getHold",
    summary="One hold",
    tags=["Holds"],
    response_description="The hold.",
    responses=responses("hold-unknown"),
)
def get_hold(organisation_id: OrganisationId, hold_id: HoldId, read: Read) -> schemas.OneHold:
    """Return one hold, open or closed."""
    found = read.view(credit_queries.hold, organisation_id, hold_id)
    return schemas.OneHold(hold=schemas.Hold.model_validate(found.holds[0]), position=found.position)


@reads.post(
    "/quotes",
    operation_id="quote",
    summary="Quote a run",
    tags=["Holds"],
    response_description="What the run would cost.",
    responses=responses("malformed-json", "body-too-large", "unsupported-media-type"),
)
def quote(organisation_id: OrganisationId, body: schemas.WantedUsage, read: Read) -> schemas.QuotedCost:
    """Return what a run would cost, its draws on lots, and what would remain.

    Records and reserves nothing.
    """
    now = read.services.clock()
    credits_count = requested_credits(body, read.services.rates, now)
    quoted, position = read.history(hold_commands.quote, organisation_id, credits_count, at=now)
    return schemas.QuotedCost.of(quoted, position)


def requested_credits(body: schemas.WantedUsage, rates: RateCard, at: datetime) -> int:
    """Return the credits that a run requests.

    Raises:
        HttpProblem: the body has neither credits nor photos of a usage type, or both.
        InvalidInput: more photos than the usage type allows.
    """
    has_photos = body.usage_type is not None or body.photos is not None
    if body.credits is not None and has_photos:
        raise invalid("credits", "give either credits, or usage_type and photos")
    if body.credits is not None:
        return body.credits
    if body.usage_type is None:
        raise invalid("usage_type", "give usage_type and photos, or credits")
    if body.photos is None:
        raise invalid("photos", "give usage_type and photos, or credits")
    check_requested_photos(body.usage_type, body.photos)
    return credits_for(body.photos, rates.rate_millionths(body.usage_type, body.ai_search, at))
