"""Writes on an organisation: open, grant, purchase, refund, and changes of its terms."""

from __future__ import annotations

from fastapi import APIRouter

from api.credits import write_schemas
from api.credits.write_schemas import Recorded
from api.http.dependencies import Write, WriteRequest
from api.http.fields import OrganisationId
from api.http.responses import write_responses
from api.http.routes import StrictRoute
from domain.credits import ledger
from domain.credits.events import GrantKind
from domain.credits.ledger import TRIAL_CREDITS
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
    """Open an organisation on the Trial plan, with free credits. Usage reported before is charged then.

    A second request is refused, unless it repeats the first one with the same `Idempotency-Key`.
    """
    result = write.ledger.open_organisation(
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
    response_description="The credits are there.",
    responses=write_responses(201, "organisation-unknown"),
)
def grant_credits(organisation_id: OrganisationId, body: write_schemas.Grant, write: Write) -> Recorded:
    """Give credits without payment. They pay an overdraft first."""
    result = write.ledger.grant(
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
    response_description="The credits are there; the answer has what they cost.",
    responses=write_responses(201, "organisation-unknown", "purchase-already-recorded", "currency-mismatch"),
)
def record_purchase(organisation_id: OrganisationId, body: write_schemas.Purchase, write: Write) -> Recorded:
    """Record credits that were paid for, at the price of this moment.

    Tax comes on top as the price book says: 18 % GST for INR.

    A payment adds its credits once, whatever `Idempotency-Key` the request carries. The first purchase
    moves an organisation from Trial to Pay As You Go.
    """
    result = write.ledger.record_purchase(
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
    response_description="The credits are back.",
    responses=write_responses(201, "organisation-unknown", "charge-unknown", "refund-exceeds-charge"),
)
def refund_charge(organisation_id: OrganisationId, body: write_schemas.Refund, write: Write) -> Recorded:
    """Return credits of a charge to the lots they came from: some, or all that is left of it.

    An open overdraft is paid first. A refund is an addition: it never lowers the usage of a month.
    """
    result = write.ledger.refund_charge(
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
    response_description="The price holds from now on.",
    responses=write_responses(200, "organisation-unknown"),
)
def change_price(organisation_id: OrganisationId, body: write_schemas.PriceChange, write: Write) -> Recorded:
    """Set the price of one credit. What was bought stays as it was bought."""
    result = write.ledger.change_price(
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
    response_description="The plan holds from now on.",
    responses=write_responses(200, "organisation-unknown"),
)
def change_plan(organisation_id: OrganisationId, body: write_schemas.PlanChange, write: Write) -> Recorded:
    """Move to another plan, with or without an end."""
    result = write.ledger.change_plan(
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
    response_description="Later charges count in this zone.",
    responses=write_responses(200, "organisation-unknown"),
)
def change_time_zone(
    organisation_id: OrganisationId, body: write_schemas.TimeZoneChange, write: Write
) -> Recorded:
    """Count later charges in another zone's days and months. Past ones stay."""
    result = write.ledger.change_time_zone(
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
    response_description="The threshold holds from now on.",
    responses=write_responses(200, "organisation-unknown"),
)
def set_low_balance_threshold(
    organisation_id: OrganisationId, body: write_schemas.LowBalanceThreshold, write: Write
) -> Recorded:
    """Have it recorded when fewer credits than this are available. 0: never."""
    result = write.ledger.set_low_balance_threshold(
        organisation_id,
        body.credits,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body),
    )
    return _recorded(write, result)


def _recorded(write: WriteRequest, result: RecordedResult[ledger.CommandResult]) -> Recorded:
    """Return the answer of a command; its headers carry the position and whether it is a repeat."""
    write.set_headers(result)
    return Recorded.of(result)
