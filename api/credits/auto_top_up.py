"""Auto top-up of an organisation. A purchase switches it on: see `POST .../purchase-quotes`."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import Field

from api.http.bodies import Body
from api.http.dependencies import Read, Write
from api.http.fields import Credits, Instant, OrganisationId
from api.http.problems import responses
from api.http.responses import COMMON_PROBLEMS, read_responses, write_responses
from api.http.routes import ReadRoute, StrictRoute
from api.http.views import Position, View
from domain.credits.auto_top_up import (
    THRESHOLD_MAX,
    TOP_UPS_PER_DAY_MAX,
    HeldReason,
    OffReason,
    TopUpTerms,
)
from domain.credits.errors import AutoTopUpNotOn
from domain.payments.events import PaymentStatus
from projections.credits import auto_top_up_queries
from projections.credits.auto_top_up_queries import AutoTopUpStatus

_PATH: Final = "/v1/organisations/{organisation_id}/auto-top-up"

reads = APIRouter(
    prefix=_PATH,
    route_class=ReadRoute,
    tags=["Payments"],
    responses={**read_responses(), **responses(*COMMON_PROBLEMS)},
)
writes = APIRouter(prefix=_PATH, route_class=StrictRoute, tags=["Payments"])

Threshold = Annotated[int, Field(ge=1, le=THRESHOLD_MAX)]
PerDay = Annotated[int, Field(ge=1, le=TOP_UPS_PER_DAY_MAX)]


class AutoTopUpTerms(Body):
    """What is bought by itself, and when."""

    credits: Credits = Field(description="Credits of one top-up.", examples=[1_000])
    threshold: Threshold = Field(
        description="It begins when fewer credits than this are available.", examples=[200]
    )
    per_day: PerDay = Field(
        default=1, description="How many may begin on a day of the organisation's zone.", examples=[1]
    )


class AutoTopUp(View):
    """Auto top-up as it stands. Terms of one that was switched off are those it had."""

    is_on: bool = Field(description="Whether credits are bought by themselves.", examples=[True])
    credits: int | None = Field(description="Credits of one top-up.", examples=[1_000])
    threshold: int | None = Field(
        description="It begins when fewer credits than this are available.", examples=[200]
    )
    per_day: int | None = Field(description="How many may begin on a day.", examples=[1])
    card_of: str | None = Field(
        description="The payment whose card is charged.", examples=["payment-0198f0c2"]
    )
    most_minor: int | None = Field(
        description="The most it is charged each time, tax included, in minor units.", examples=[177_000]
    )
    currency: str = Field(description="The currency of the amount.", examples=["INR"])
    switched_on_at: Instant | None = Field(description="When it was switched on last.")
    off_reason: OffReason | None = Field(
        description="Why it was switched off, if it was and is.", examples=[None]
    )
    begun_today: int = Field(description="Top-ups begun on this day.", examples=[0])
    held_back: HeldReason | None = Field(
        description="Why no more begin on this day, although credits are low.", examples=[None]
    )
    last_payment_id: str | None = Field(description="The payment of the last top-up.", examples=[None])
    last_status: PaymentStatus | None = Field(description="What has become of it.", examples=[None])
    last_day: date | None = Field(description="The day on which it began.", examples=[None])
    position: Position

    @classmethod
    def of(cls, standing: AutoTopUpStatus, now: datetime) -> AutoTopUp:
        """Return what is told of a standing at a moment."""
        return cls(
            is_on=standing.is_on,
            credits=standing.credits,
            threshold=standing.threshold,
            per_day=standing.per_day,
            card_of=standing.card_of,
            most_minor=standing.most_minor,
            currency=standing.currency,
            switched_on_at=standing.switched_on_at,
            off_reason=None if standing.is_on else standing.off_reason,
            begun_today=standing.count_started_on(now),
            held_back=standing.held_reason_at(now),
            last_payment_id=standing.last_payment_id,
            last_status=standing.last_status,
            last_day=standing.last_day,
            position=standing.position,
        )


class AutoTopUpRecorded(View):
    """Auto top-up after a write."""

    is_on: bool = Field(description="Whether credits are bought by themselves.", examples=[True])
    version: int = Field(description="Number of the organisation's latest event.", examples=[17])
    position: Position


@reads.get(
    "",
    operation_id="getAutoTopUp",
    summary="Auto top-up",
    response_description="Where it stands.",
)
def get_auto_top_up(organisation_id: OrganisationId, read: Read) -> AutoTopUp:
    """Whether credits are bought by themselves when few are left, and what holds that back today."""
    standing = read.view(auto_top_up_queries.auto_top_up, organisation_id)
    return AutoTopUp.of(standing, read.services.clock())


@writes.put(
    "",
    operation_id="changeAutoTopUp",
    summary="Change auto top-up",
    response_description="The new terms hold from now on.",
    responses=write_responses(200, "organisation-unknown", "auto-top-up-is-off", "billing-is-custom"),
)
def change_auto_top_up(
    organisation_id: OrganisationId, body: AutoTopUpTerms, write: Write
) -> AutoTopUpRecorded:
    """Change what is bought by itself while it is on.

    More than the card's owner agreed to takes a purchase that switches it on anew.
    """
    result = write.services.top_ups.change(
        organisation_id,
        TopUpTerms(body.credits, body.threshold, body.per_day),
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    write.set_headers(result)
    standing = result.value
    return AutoTopUpRecorded(is_on=standing.is_on, version=standing.version, position=result.position)


@writes.delete(
    "",
    operation_id="switchOffAutoTopUp",
    summary="Switch auto top-up off",
    status_code=204,
    response_description="Nothing is bought by itself any more.",
    responses=responses(*COMMON_PROBLEMS),
)
def switch_off_auto_top_up(organisation_id: OrganisationId, write: Write) -> None:
    """Buy nothing by itself any more, and have the gateway forget the card. What is off stays off."""
    with suppress(AutoTopUpNotOn):
        write.services.top_ups.switch_off(organisation_id, context=write.request)
