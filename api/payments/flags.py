"""Everything odd about payments, of all organisations, and settling it: for staff and auditors."""

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
    response_description="A page: open ones first, the latest first.",
)
def list_payment_flags(
    read: Read, cursor: PageCursor = None, limit: PageLimit = DEFAULT_PAGE_LIMIT
) -> schemas.PaymentFlagPage:
    """Money that moved otherwise than a payment says, of all organisations: what it was, and where it lies.

    With `gives_back` it can go back through the gateway: ask for a refund with the attempt's
    `gateway_payment_id`.
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
    """Record that somebody dealt with what was flagged. The note is kept where it can be erased.

    Giving the money back settles a flag by itself.
    """
    standing = write.services.payments.settle_flag(
        organisation_id,
        payment_id,
        FlagKey(body.flag, body.gateway_payment_id, body.amount_minor),
        body.note,
        context=write.request,
        idempotency_key=write.idempotency_key(organisation_id, body, part=payment_id),
    )
    write.set_position_headers(standing.position, repeated=standing.repeated)
    return payment_schemas.PaymentRecorded.of(standing)
