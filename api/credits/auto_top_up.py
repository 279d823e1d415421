"""Auto top-up of an organisation. A purchase enables it: see `POST .../purchase-quotes`."""

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
    TopUpTerms,
)
from domain.credits.auto_top_up_events import HeldReason, OffReason
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
    """The terms of auto top-up: how many credits it buys, and when."""

    credits: Credits = Field(description="Credits of one top-up.", examples=[1_000])
    threshold: Threshold = Field(
        description="A top-up starts when fewer credits than this are available.", examples=[200]
    )
    per_day: PerDay = Field(
        default=1, description="Top-ups per day, in the organisation's time zone.", examples=[1]
    )


class AutoTopUp(View):
    """The state of auto top-up. When it is off, the terms are the last ones."""

    is_on: bool = Field(description="Whether auto top-up is on.", examples=[True])
    credits: int | None = Field(description="Credits of one top-up.", examples=[1_000])
    threshold: int | None = Field(
        description="A top-up starts when fewer credits than this are available.", examples=[200]
    )
    per_day: int | None = Field(description="Top-ups per day.", examples=[1])
    card_of: str | None = Field(
        description="The payment whose card is charged.", examples=["payment-0198f0c2"]
    )
    most_minor: int | None = Field(
        description="The largest amount of one top-up, including tax, in minor units.", examples=[177_000]
    )
    currency: str = Field(description="The currency of the amount.", examples=["INR"])
    switched_on_at: Instant | None = Field(description="When auto top-up was last switched on.")
    off_reason: OffReason | None = Field(
        description="Why it was switched off; null while it is on.", examples=[None]
    )
    begun_today: int = Field(description="Top-ups that started today.", examples=[0])
    held_back: HeldReason | None = Field(
        description="Why no top-up starts today although credits are low.", examples=[None]
    )
    last_payment_id: str | None = Field(description="The payment of the last top-up.", examples=[None])
    last_status: PaymentStatus | None = Field(description="The status of that payment.", examples=[None])
    last_day: date | None = Field(description="The day on which the last top-up started.", examples=[None])
    position: Position

    @classmethod
    def of(cls, status: AutoTopUpStatus, now: datetime) -> AutoTopUp:
        """Return the response for a status at a time."""
        return cls(
            is_on=status.is_on,
            credits=status.credits,
            threshold=status.threshold,
            per_day=status.per_day,
            card_of=status.card_of,
            most_minor=status.most_minor,
            currency=status.currency,
            switched_on_at=status.switched_on_at,
            off_reason=None if status.is_on else status.off_reason,
            begun_today=status.count_started_on(now),
            held_back=status.held_reason_at(now),
            last_payment_id=status.last_payment_id,
            last_status=status.last_status,
            last_day=status.last_day,
            position=status.position,
        )


class AutoTopUpRecorded(View):
    """Auto top-up after a write."""

    is_on: bool = Field(description="Whether auto top-up is on.", examples=[True])
    version: int = Field(description="Number of the organisation's latest event.", examples=[17])
    position: Position


@reads.get(
    "",
    operation_id="getAutoTopUp",
    summary="Auto top-up",
    response_description="The state of auto top-up.",
)
def get_auto_top_up(organisation_id: OrganisationId, read: Read) -> AutoTopUp:
    """The terms of auto top-up, its last payment, and why no top-up starts today although credits are low."""
    status = read.view(auto_top_up_queries.auto_top_up, organisation_id)
    return AutoTopUp.of(status, read.services.clock())


@writes.put(
    "",
    operation_id="changeAutoTopUp",
    summary="Change auto top-up",
    response_description="The new terms apply from now on.",
    responses=write_responses(200, "organisation-unknown", "auto-top-up-is-off", "billing-is-custom"),
)
def change_auto_top_up(
    organisation_id: OrganisationId, body: AutoTopUpTerms, write: Write
) -> AutoTopUpRecorded:
    """Change the terms of auto top-up while it is on.

    A larger amount than the cardholder agreed to needs a new purchase that switches auto top-up on again.
    """
    result = write.services.top_ups.change(
        organisation_id,
        TopUpTerms(body.credits, body.threshold, body.per_day),
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    write.set_headers(result)
    status = result.value
    return AutoTopUpRecorded(is_on=status.is_on, version=status.version, position=result.position)


@writes.delete(
    "",
    operation_id="switchOffAutoTopUp",
    summary="Switch auto top-up off",
    status_code=204,
    response_description="Auto top-up is off.",
    responses=responses(*COMMON_PROBLEMS),
)
def switch_off_auto_top_up(organisation_id: OrganisationId, write: Write) -> None:
    """Switch auto top-up off, and delete the card at the gateway. A repeat changes nothing."""
    with suppress(AutoTopUpNotOn):
        write.services.top_ups.switch_off(organisation_id, context=write.request)
