"""Flags of payments of all organisations: list them, settle one. For staff and auditors."""

from __future__ import annotations

from fastapi import APIRouter

from api.http.dependencies import Read, Write
from api.http.fields import OrganisationId, PageCursor, PageLimit
from api.http.problems import responses
from api.http.responses import COMMON_PROBLEMS, DEFAULT_PAGE_LIMIT, read_responses, write_responses
from api.http.routes import ReadRoute, StrictRoute
from api.payments import flag_schemas as schemas
from api.payments import schemas as payment_schemas
from api.payments.payments import PaymentId
from domain.payments.events import FlagKey
from projections.payments import flag_queries

writes = APIRouter(route_class=StrictRoute, tags=["Payments"])
reads = APIRouter(
    route_class=ReadRoute,
    tags=["Payments"],
    responses={**read_responses(), **responses(*COMMON_PROBLEMS)},
)


@reads.get(
    "/v1/payment-flags",
    operation_id="listPaymentFlags",
    summary="Flagged payments",
    response_description="A page: open flags first, then newest first.",
)
def list_payment_flags(
    read: Read, cursor: PageCursor = None, limit: PageLimit = DEFAULT_PAGE_LIMIT
) -> schemas.PaymentFlagPage:
    """List the flags of all organisations: money that moved differently from what the payment expects.

    If `gives_back` is true, the money can be refunded through the gateway: request a refund with the
    attempt's `gateway_payment_id`.
    """
    page = read.view_all(flag_queries.flags, cursor, limit)
    notes = read.services.payments.notes([row.payment_id for row in page.flags])
    return schemas.PaymentFlagPage(
        flags=[schemas.PaymentFlag.of(row, notes.get((row.payment_id, row.key))) for row in page.flags],
        next_cursor=page.next_cursor,
        position=page.position,
    )


@writes.post(
    "/v1/organisations/{organisation_id}/payments/{payment_id}/flags/settle",
    operation_id="settlePaymentFlag",
    summary="Settle a flag",
    response_description="The flag is settled.",
    responses=write_responses(200, "organisation-unknown", "payment-unknown", "flag-not-open"),
)
def settle_payment_flag(
    organisation_id: OrganisationId, payment_id: PaymentId, body: schemas.SettleFlag, write: Write
) -> payment_schemas.PaymentRecorded:
    """Settle a flag with a note on how it was resolved. The note is stored where it can be erased.

    A refund of the money settles the flag automatically.
    """
    result = write.services.payments.settle_flag(
        organisation_id,
        payment_id,
        FlagKey(body.flag, body.gateway_payment_id, body.amount_minor),
        body.note,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body, part=payment_id),
    )
    write.set_position_headers(result.position, repeated=result.repeated)
    return payment_schemas.PaymentRecorded.of(result)
