"""Purchases and payments of an organisation, and the webhooks of payment gateways."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.http.dependencies import ContextDep, Read, ReadRequest, Write, WriteRequest, services_of
from api.http.fields import ID_LENGTH_MAX, OrganisationId, PageCursor, PageLimit
from api.http.problems import responses
from api.http.responses import COMMON_PROBLEMS, DEFAULT_PAGE_LIMIT, read_responses, write_responses
from api.http.routes import ReadRoute, StrictRoute, read_body
from api.payments import schemas
from domain.credits.ledger import Ledger
from domain.payments.errors import PaymentNotFound
from domain.payments.gateway import GatewayError, id_for_gateway
from domain.payments.quotes import PurchaseQuote
from domain.payments.repository import PaymentResult
from domain.shared import command_context
from projections.payments import queries as payment_queries

_PREFIX: Final = "/v1/organisations/{organisation_id}"
_GATEWAY_PROBLEMS: Final = ("gateway-unknown", "gateway-unavailable", "gateway-refused")
_FIELDS_MAX: Final = 64

PaymentId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=ID_LENGTH_MAX,
        pattern=r"^[!-~]+$",
        description="The ledger's id of the payment.",
        examples=["payment-0198f0c2"],
    ),
]
GatewayName = Annotated[
    str,
    Path(
        min_length=1,
        max_length=ID_LENGTH_MAX,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="The gateway.",
        examples=["razorpay"],
    ),
]

writes = APIRouter(prefix=_PREFIX, route_class=StrictRoute, tags=["Payments"])
reads = APIRouter(
    prefix=_PREFIX,
    route_class=ReadRoute,
    tags=["Payments"],
    responses={**read_responses(), **responses(*COMMON_PROBLEMS)},
)
gateway_callbacks = APIRouter(route_class=StrictRoute, tags=["Payments"])


@reads.post(
    "/purchase-quotes",
    operation_id="quotePurchase",
    summary="Quote a purchase",
    response_description="The quote.",
    responses=responses(
        "malformed-json",
        "body-too-large",
        "unsupported-media-type",
        "pro-already",
        "billing-is-custom",
    ),
)
def quote_purchase(
    organisation_id: OrganisationId, body: schemas.PurchaseQuoteRequest, read: Read, context: ContextDep
) -> schemas.QuotedPurchase:
    """Return the cost, with tax, of credits, of a year of Pro with or without credits, or of a custom amount.

    The quote is valid for half an hour.

    A purchase of credits can switch auto top-up on. The gateway then stores the payer's card.
    """
    services = read.services

    def quote(_: Ledger, name: str) -> PurchaseQuote:
        return services.payments.quote(
            name,
            body.plan,
            body.credits,
            amount_minor=body.amount_minor,
            remark=body.remark,
            quote_id=services.new_id(),
            context=context,
            top_up=body.top_up,
        )

    quoted, position = read.history(quote, organisation_id)
    return schemas.QuotedPurchase.of(quoted, position)


@writes.post(
    "/payments",
    operation_id="beginPayment",
    summary="Pay a quote",
    status_code=201,
    response_description="The payment, and the address of the gateway's page.",
    responses=write_responses(
        201,
        "organisation-unknown",
        "quote-unknown",
        "quote-expired",
        "pro-already",
        "billing-is-custom",
        "gateway-unknown",
        "gateway-unavailable",
        "auto-top-up-is-on",
        "billing-details-missing",
    ),
)
def begin_payment(
    organisation_id: OrganisationId, body: schemas.BeginPayment, write: Write
) -> schemas.PaymentRecorded:
    """Create a payment for a quote. A quote has one payment: a repeat returns the same payment.

    Send the browser to `checkout`. The service checks the result with the gateway, and adds the credits as
    soon as the money has arrived. If the gateway refuses the order, the payment has failed.
    """
    return _payment_recorded(
        write,
        write.services.payments.begin(
            organisation_id,
            body.quote_id,
            body.gateway,
            payment_id=id_for_gateway("pay", write.services.new_id()),
            context=write.request,
            idempotency_key=write.idempotency_key(organisation_id, body),
        ),
    )


@writes.post(
    "/custom-payments",
    operation_id="beginCustomPayment",
    summary="Request a custom payment",
    status_code=201,
    response_description="The payment, and the address of the gateway's page.",
    responses=write_responses(201, "organisation-unknown", "gateway-unknown", "gateway-unavailable"),
)
def begin_custom_payment(
    organisation_id: OrganisationId, body: schemas.BeginCustomPayment, write: Write
) -> schemas.PaymentRecorded:
    """Request an amount, plus tax, from an organisation. The payment adds no credits."""
    return _payment_recorded(
        write,
        write.services.payments.begin_custom(
            organisation_id,
            body.amount_minor,
            body.remark,
            body.gateway,
            payment_id=id_for_gateway("pay", write.services.new_id()),
            context=write.request,
            idempotency_key=write.idempotency_key(organisation_id, body),
        ),
    )


@writes.post(
    "/payments/{payment_id}/checkout",
    operation_id="checkOutPayment",
    summary="Check out a pending payment",
    response_description="The payment, and the address of the gateway's page if it can be paid.",
    responses=write_responses(200, "organisation-unknown", "payment-unknown", *_GATEWAY_PROBLEMS),
)
def check_out_payment(
    organisation_id: OrganisationId, payment_id: PaymentId, body: schemas.EmptyBody, write: Write
) -> schemas.PaymentRecorded:
    """Return the address of the gateway's page again, for a payer who lost it, or for a custom payment."""
    result = write.services.payments.checkout(organisation_id, payment_id, context=write.request)
    return _payment_recorded(write, result)


@writes.post(
    "/payments/{payment_id}/recheck",
    operation_id="recheckPayment",
    summary="Recheck a payment",
    response_description="The payment after the check.",
    responses=write_responses(200, "organisation-unknown", "payment-unknown", *_GATEWAY_PROBLEMS),
)
def recheck_payment(
    organisation_id: OrganisationId, payment_id: PaymentId, body: schemas.EmptyBody, write: Write
) -> schemas.PaymentRecorded:
    """Request the status of a payment from the gateway, and complete the payment if it is paid."""
    result = write.services.payment_tracking.recheck(
        payment_id, organisation_id=organisation_id, context=write.request
    )
    return _payment_recorded(write, result)


@writes.post(
    "/payments/{payment_id}/abandon",
    operation_id="abandonPayment",
    summary="Abandon a payment",
    response_description="The payment is abandoned.",
    responses=write_responses(200, "organisation-unknown", "payment-unknown", "payment-closed"),
)
def abandon_payment(
    organisation_id: OrganisationId, payment_id: PaymentId, body: schemas.EmptyBody, write: Write
) -> schemas.PaymentRecorded:
    """Abandon an unpaid payment. If the gateway receives the money later, the payment still completes."""
    result = write.services.payments.abandon(organisation_id, payment_id, context=write.request)
    return _payment_recorded(write, result)


@writes.post(
    "/payments/{payment_id}/refunds",
    operation_id="refundPayment",
    summary="Refund a payment",
    status_code=201,
    response_description="The refund is recorded; the gateway returns the money later.",
    responses=write_responses(
        201,
        "organisation-unknown",
        "payment-unknown",
        "payment-not-refundable",
        "refund-exceeds-purchase",
        "refund-exceeds-payment",
    ),
)
def refund_payment(
    organisation_id: OrganisationId, payment_id: PaymentId, body: schemas.RefundPayment, write: Write
) -> schemas.PaymentRecorded:
    """Refund money through the gateway, and take back what it bought. Send one of these fields:

    - `credits`: unspent credits of a purchase, and their price. An empty body means all unspent credits.
    - `amount_minor`: a part of a custom payment (required there) or of a plan's fee. A refund of the whole
      fee ends the subscription immediately; a partial refund does not.
    - `gateway_payment_id`: the whole amount of a flagged attempt that paid for nothing (flags `paid_twice`
      and `amount_differs`). The status of the payment does not change.

    The status becomes `refunded` when the gateway confirms the refund. If the gateway refuses it, the credits
    or the subscription are restored and the payment is flagged.
    """
    return _payment_recorded(
        write,
        write.services.refunds.refund(
            organisation_id,
            payment_id,
            body.to_refund_request(),
            refund_id=id_for_gateway("ref", write.services.new_id()),
            context=write.request,
            idempotency_key=write.idempotency_key(organisation_id, body, part=payment_id),
        ),
    )


@reads.get(
    "/payments",
    operation_id="listPayments",
    summary="Payments",
    response_description="A page, newest first.",
)
def list_payments(
    organisation_id: OrganisationId,
    read: Read,
    cursor: PageCursor = None,
    limit: PageLimit = DEFAULT_PAGE_LIMIT,
) -> schemas.PaymentPage:
    """List all payments in every status, newest first."""
    page = read.view(payment_queries.payments, organisation_id, cursor, limit)
    return schemas.PaymentPage(
        payments=_with_remarks(read, organisation_id, page),
        next_cursor=page.next_cursor,
        position=page.position,
    )


@reads.get(
    "/payments/{payment_id}",
    operation_id="getPayment",
    summary="One payment",
    response_description="The payment.",
    responses=responses("organisation-unknown", "payment-unknown"),
)
def get_payment(organisation_id: OrganisationId, payment_id: PaymentId, read: Read) -> schemas.OnePayment:
    """Return one payment."""
    page = read.view(payment_queries.payment, organisation_id, payment_id)
    return schemas.OnePayment(payment=_with_remarks(read, organisation_id, page)[0], position=page.position)


@gateway_callbacks.post(
    "/v1/gateways/{gateway}/webhooks",
    operation_id="hearGateway",
    summary="Receive a gateway's webhook",
    status_code=204,
    response_description="The webhook is accepted.",
    responses=responses(
        "notice-refused",
        "cross-site-request",
        "gateway-unknown",
        "body-too-large",
        "host-not-allowed",
        "invalid-request",
        "internal-error",
        "store-unavailable",
    ),
)
async def handle_gateway_webhook(gateway: GatewayName, request: Request) -> Response:
    """Receive a signed webhook from a payment gateway. Webhooks may arrive twice, late, and in any order.

    A webhook about an unknown order is accepted and ignored. If an endpoint refuses webhooks for one day, the
    gateway stops sending them.
    """
    body = await read_body(request)
    services = services_of(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    context = command_context.CommandContext(services.clock(), None, request.state.request_id)
    await run_in_threadpool(services.payment_tracking.handle_webhook, gateway, body, headers, context)
    return Response(status_code=204)


@gateway_callbacks.post(
    "/credits/payments/{payment_id}/return",
    include_in_schema=False,
)
async def handle_return(payment_id: PaymentId, request: Request) -> RedirectResponse:
    """Receive the result that a browser brings from the gateway's page, and redirect to the payment.

    The browser comes from another site, without our cookies. The handler trusts only the fields that the
    gateway has signed.
    """
    body = await read_body(request)
    services = services_of(request)
    context = command_context.CommandContext(services.clock(), None, request.state.request_id)
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=_FIELDS_MAX))
    query = {"payment": payment_id}
    with suppress(GatewayError, PaymentNotFound):  # a payment that is unknown now is rechecked later
        result = await run_in_threadpool(services.payment_tracking.handle_return, payment_id, fields, context)
        query["organisation"] = result.payment.terms.organisation_id
    return RedirectResponse(f"/credits/billing?{urlencode(query)}", status_code=303)


def _payment_recorded(write: WriteRequest, result: PaymentResult) -> schemas.PaymentRecorded:
    write.set_position_headers(result.position, repeated=result.repeated)
    return schemas.PaymentRecorded.of(result)


def _with_remarks(
    read: ReadRequest, organisation_id: str, page: payment_queries.PaymentPage
) -> list[schemas.Payment]:
    remarks = read.services.payments.remarks(
        organisation_id, [payment.payment_id for payment in page.payments if payment.kind == "custom"]
    )
    return [
        schemas.Payment.model_validate(payment).model_copy(update={"remark": remarks.get(payment.payment_id)})
        for payment in page.payments
    ]
