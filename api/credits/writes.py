"""Writes on an organisation: open, grant, purchase, refund, and change its terms."""

from __future__ import annotations

from fastapi import APIRouter

from api.credits import write_schemas
from api.credits.write_schemas import Recorded
from api.http.dependencies import Write, WriteRequest
from api.http.fields import OrganisationId
from api.http.responses import write_responses
from api.http.routes import StrictRoute
from domain.credits.command_result import CommandResult
from domain.credits.commands import TRIAL_CREDITS
from domain.credits.events import GrantKind
from domain.shared.command_runner import RecordedResult

router = APIRouter(prefix="/v1/organisations/{organisation_id}", route_class=StrictRoute)


@router.put(
    "",
    operation_id="openOrganisation",
    summary="Open an organisation",
    tags=["Organisation"],
    status_code=201,
    response_description="The organisation is open.",
    responses=write_responses(201, "organisation-already-open"),
)
def open_organisation(
    organisation_id: OrganisationId, body: write_schemas.OpenOrganisation, write: Write
) -> Recorded:
    """Open an organisation on the Trial plan, with free credits.

    Usage that was reported before the opening is charged afterwards.
    A second request fails, unless it repeats the first request with the same `Idempotency-Key`.
    """
    result = write.services.commands.open_organisation(
        organisation_id,
        time_zone=body.time_zone,
        currency=body.currency,
        price_millionths=body.price_millionths,
        trial_credits=TRIAL_CREDITS if body.trial_credits is None else body.trial_credits,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


@router.post(
    "/grants",
    operation_id="grantCredits",
    summary="Grant credits",
    tags=["Credits"],
    status_code=201,
    response_description="The credits are granted.",
    responses=write_responses(201, "organisation-unknown"),
)
def grant_credits(organisation_id: OrganisationId, body: write_schemas.Grant, write: Write) -> Recorded:
    """Grant credits without a payment. They pay an overdraft first."""
    result = write.services.commands.grant(
        organisation_id,
        body.credits,
        kind=GrantKind(body.kind),
        reason=body.reason,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


@router.post(
    "/purchases",
    operation_id="recordPurchase",
    summary="Record a purchase",
    tags=["Credits"],
    status_code=201,
    response_description="The purchase is recorded; the response has its amount.",
    responses=write_responses(201, "organisation-unknown", "purchase-already-recorded", "currency-mismatch"),
)
def record_purchase(organisation_id: OrganisationId, body: write_schemas.Purchase, write: Write) -> Recorded:
    """Record credits that were paid for, at the current price.

    The price book decides the tax, which is added to the amount: 18 % GST for INR.

    A payment adds its credits only once, even if requests have different `Idempotency-Key`s. The first
    purchase moves an organisation from Trial to Pay As You Go.
    """
    result = write.services.commands.record_purchase(
        organisation_id,
        body.credits,
        payment_id=body.payment_id,
        order_id=body.order_id,
        gateway=body.gateway,
        currency=body.currency,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


@router.post(
    "/refunds",
    operation_id="refundCharge",
    summary="Refund a charge",
    tags=["Credits"],
    status_code=201,
    response_description="The credits are returned.",
    responses=write_responses(201, "organisation-unknown", "charge-unknown", "refund-exceeds-charge"),
)
def refund_charge(organisation_id: OrganisationId, body: write_schemas.Refund, write: Write) -> Recorded:
    """Return credits of a charge to their lots: some of them, or all that were not refunded yet.

    If there is an overdraft, it is paid first. A refund is an addition: the usage of a month stays the same.
    """
    result = write.services.commands.refund_charge(
        organisation_id,
        body.charge,
        body.credits,
        reason=body.reason,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


@router.put(
    "/price",
    operation_id="changePrice",
    summary="Change the price",
    tags=["Organisation"],
    response_description="The price applies from now on.",
    responses=write_responses(200, "organisation-unknown"),
)
def change_price(organisation_id: OrganisationId, body: write_schemas.PriceChange, write: Write) -> Recorded:
    """Set the price of one credit. Past purchases keep their price."""
    result = write.services.commands.change_price(
        organisation_id,
        body.price_millionths,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


@router.put(
    "/plan",
    operation_id="changePlan",
    summary="Change the plan",
    tags=["Organisation"],
    response_description="The plan applies from now on.",
    responses=write_responses(200, "organisation-unknown"),
)
def change_plan(organisation_id: OrganisationId, body: write_schemas.PlanChange, write: Write) -> Recorded:
    """Move the organisation to another plan, with or without an expiry."""
    result = write.services.commands.change_plan(
        organisation_id,
        body.plan,
        expires_at=body.expires_at,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


@router.put(
    "/time-zone",
    operation_id="changeTimeZone",
    summary="Change the time zone",
    tags=["Organisation"],
    response_description="Later charges use this time zone.",
    responses=write_responses(200, "organisation-unknown"),
)
def change_time_zone(
    organisation_id: OrganisationId, body: write_schemas.TimeZoneChange, write: Write
) -> Recorded:
    """Count later charges in the days and months of another time zone. Past charges do not change."""
    result = write.services.commands.change_time_zone(
        organisation_id,
        body.time_zone,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


@router.put(
    "/low-balance-threshold",
    operation_id="setLowBalanceThreshold",
    summary="Set the low-balance threshold",
    tags=["Organisation"],
    response_description="The threshold applies from now on.",
    responses=write_responses(200, "organisation-unknown"),
)
def set_low_balance_threshold(
    organisation_id: OrganisationId, body: write_schemas.LowBalanceThreshold, write: Write
) -> Recorded:
    """Set the threshold of a low balance.

    The ledger records an event when fewer credits are available. 0 means never.
    """
    result = write.services.commands.set_low_balance_threshold(
        organisation_id,
        body.credits,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


def _recorded(write: WriteRequest, result: RecordedResult[CommandResult]) -> Recorded:
    """Return the response of a command, and set its position and replay headers."""
    write.set_headers(result)
    return Recorded.of(result)
