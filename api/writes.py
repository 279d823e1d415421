"""Writes on an organisation: open, grant, purchase, refund, and changes of its terms."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter

from api import requests
from api.dependencies import POSITION_HEADER, REPLAYED_HEADER, Write
from api.fields import OrganisationId
from api.problems import responses
from api.requests import Recorded
from api.routes import StrictRoute
from domain.facts import GrantKind
from domain.ledger import TRIAL_CREDITS

_PROBLEMS: Final = (
    "malformed-json",
    "cross-site-request",
    "body-too-large",
    "unsupported-media-type",
    "host-not-allowed",
    "invalid-request",
    "idempotency-conflict",
    "internal-error",
    "store-unavailable",
)
_HEADERS: Final = {
    POSITION_HEADER: {
        "description": "Log position of the write.",
        "schema": {"type": "integer", "minimum": 0},
    },
    REPLAYED_HEADER: {
        "description": "There if the answer repeats the first one to this Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}

router = APIRouter(prefix="/v1/organisations/{organisation_id}", route_class=StrictRoute)


def answers(status: int, *names: str) -> dict[int | str, dict[str, Any]]:
    """Return what a write answers, as OpenAPI has it: its headers, and its problems by name."""
    return {status: {"headers": _HEADERS}, **responses(*_PROBLEMS, *names)}


@router.put(
    "",
    operation_id="openOrganisation",
    summary="Open an organisation",
    tags=["Organisation"],
    status_code=201,
    response_description="The organisation is open.",
    responses=answers(201, "organisation-already-open"),
)
def open_organisation(
    organisation_id: OrganisationId, body: requests.OpenOrganisation, write: Write
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
        request=write.request,
        once=write.once(organisation_id, body),
    )
    return write.answer(result)


@router.post(
    "/grants",
    operation_id="grantCredits",
    summary="Grant credits",
    tags=["Credits"],
    status_code=201,
    response_description="The credits are there.",
    responses=answers(201, "organisation-unknown"),
)
def grant_credits(organisation_id: OrganisationId, body: requests.Grant, write: Write) -> Recorded:
    """Give credits without payment. They pay an overdraft first."""
    result = write.ledger.grant(
        organisation_id,
        body.credits,
        kind=GrantKind(body.kind),
        reason=body.reason,
        request=write.request,
        once=write.once(organisation_id, body),
    )
    return write.answer(result)


@router.post(
    "/purchases",
    operation_id="recordPurchase",
    summary="Record a purchase",
    tags=["Credits"],
    status_code=201,
    response_description="The credits are there; the answer has what they cost.",
    responses=answers(201, "organisation-unknown", "purchase-already-recorded", "currency-mismatch"),
)
def record_purchase(organisation_id: OrganisationId, body: requests.Purchase, write: Write) -> Recorded:
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
        request=write.request,
        once=write.once(organisation_id, body),
    )
    return write.answer(result)


@router.post(
    "/refunds",
    operation_id="refundCharge",
    summary="Refund a charge",
    tags=["Credits"],
    status_code=201,
    response_description="The credits are back.",
    responses=answers(201, "organisation-unknown", "charge-unknown", "refund-exceeds-charge"),
)
def refund_charge(organisation_id: OrganisationId, body: requests.Refund, write: Write) -> Recorded:
    """Return credits of a charge to the lots they came from: some, or all that is left of it.

    An open overdraft is paid first. A refund is an addition: it never lowers the usage of a month.
    """
    result = write.ledger.refund_charge(
        organisation_id,
        body.charge,
        body.credits,
        reason=body.reason,
        request=write.request,
        once=write.once(organisation_id, body),
    )
    return write.answer(result)


@router.put(
    "/price",
    operation_id="changePrice",
    summary="Change the price",
    tags=["Organisation"],
    response_description="The price holds from now on.",
    responses=answers(200, "organisation-unknown"),
)
def change_price(organisation_id: OrganisationId, body: requests.PriceChange, write: Write) -> Recorded:
    """Set the price of one credit. What was bought stays as it was bought."""
    result = write.ledger.change_price(
        organisation_id,
        body.price_millionths,
        request=write.request,
        once=write.once(organisation_id, body),
    )
    return write.answer(result)


@router.put(
    "/plan",
    operation_id="changePlan",
    summary="Change the plan",
    tags=["Organisation"],
    response_description="The plan holds from now on.",
    responses=answers(200, "organisation-unknown"),
)
def change_plan(organisation_id: OrganisationId, body: requests.PlanChange, write: Write) -> Recorded:
    """Move to another plan, with or without an end."""
    result = write.ledger.change_plan(
        organisation_id,
        body.plan,
        expires_at=body.expires_at,
        request=write.request,
        once=write.once(organisation_id, body),
    )
    return write.answer(result)


@router.put(
    "/time-zone",
    operation_id="changeTimeZone",
    summary="Change the time zone",
    tags=["Organisation"],
    response_description="Later charges count in this zone.",
    responses=answers(200, "organisation-unknown"),
)
def change_time_zone(
    organisation_id: OrganisationId, body: requests.TimeZoneChange, write: Write
) -> Recorded:
    """Count later charges in another zone's days and months. Past ones stay."""
    result = write.ledger.change_time_zone(
        organisation_id,
        body.time_zone,
        request=write.request,
        once=write.once(organisation_id, body),
    )
    return write.answer(result)


@router.put(
    "/low-balance-threshold",
    operation_id="setLowBalanceThreshold",
    summary="Set the low-balance threshold",
    tags=["Organisation"],
    response_description="The threshold holds from now on.",
    responses=answers(200, "organisation-unknown"),
)
def set_low_balance_threshold(
    organisation_id: OrganisationId, body: requests.LowBalanceThreshold, write: Write
) -> Recorded:
    """Have it recorded when fewer credits than this are available. 0: never."""
    result = write.ledger.set_low_balance_threshold(
        organisation_id,
        body.credits,
        request=write.request,
        once=write.once(organisation_id, body),
    )
    return write.answer(result)
