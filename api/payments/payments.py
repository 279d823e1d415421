"""Purchases and payments of an organisation, and what gateways tell of them."""

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
        description="Our id of the payment.",
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
    response_description="What it costs.",
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
    """What credits, with or without a year of Pro, or an amount of your own cost, tax on top.

    The quote is kept to for half an hour.

    A purchase of credits can switch auto top-up on: the gateway then keeps the payer's card.
    """
    services = read.services

    def ask(_: Ledger, name: str) -> PurchaseQuote:
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

    quoted, position = read.history(ask, organisation_id)
    return schemas.QuotedPurchase.of(quoted, position)


@writes.post(
    "/payments",
    operation_id="beginPayment",
    summary="Pay a quote",
    status_code=201,
    response_description="The payment, and the way to the gateway's page.",
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
    """Begin to pay what a quote says. A quote has one payment: asking again returns it.

    Send the browser to `checkout`. Whatever becomes of it, the gateway is asked, and the credits are there as
    soon as the money is. An order that the gateway would not open is a payment that has failed.
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
    summary="Ask for an amount",
    status_code=201,
    response_description="The payment, and the way to the gateway's page.",
    responses=write_responses(201, "organisation-unknown", "gateway-unknown", "gateway-unavailable"),
)
def begin_custom_payment(
    organisation_id: OrganisationId, body: schemas.BeginCustomPayment, write: Write
) -> schemas.PaymentRecorded:
    """Ask an organisation for an amount, tax on top. It adds no credits."""
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
    summary="Pay a payment that is pending",
    response_description="The payment, and the way to the gateway's page if it can be paid.",
    responses=write_responses(200, "organisation-unknown", "payment-unknown", *_GATEWAY_PROBLEMS),
)
def check_out_payment(
    organisation_id: OrganisationId, payment_id: PaymentId, body: schemas.EmptyBody, write: Write
) -> schemas.PaymentRecorded:
    """Return the way to the gateway's page once more, for who has lost it or was asked for an amount."""
    standing = write.services.payments.checkout(organisation_id, payment_id, context=write.request)
    return _payment_recorded(write, standing)


@writes.post(
    "/payments/{payment_id}/recheck",
    operation_id="recheckPayment",
    summary="Recheck a payment",
    response_description="The payment as the gateway knows it.",
    responses=write_responses(200, "organisation-unknown", "payment-unknown", *_GATEWAY_PROBLEMS),
)
def recheck_payment(
    organisation_id: OrganisationId, payment_id: PaymentId, body: schemas.EmptyBody, write: Write
) -> schemas.PaymentRecorded:
    """Ask the gateway what has become of a payment, and complete it if it is paid."""
    standing = write.services.payment_tracking.recheck(
        payment_id, organisation_id=organisation_id, context=write.request
    )
    return _payment_recorded(write, standing)


@writes.post(
    "/payments/{payment_id}/abandon",
    operation_id="abandonPayment",
    summary="Abandon a payment",
    response_description="The payment is given up.",
    responses=write_responses(200, "organisation-unknown", "payment-unknown", "payment-closed"),
)
def abandon_payment(
    organisation_id: OrganisationId, payment_id: PaymentId, body: schemas.EmptyBody, write: Write
) -> schemas.PaymentRecorded:
    """Give a payment up that nobody has paid. If the gateway takes the money after all, it completes."""
    standing = write.services.payments.abandon(organisation_id, payment_id, context=write.request)
    return _payment_recorded(write, standing)


@writes.post(
    "/payments/{payment_id}/refunds",
    operation_id="refundPayment",
    summary="Refund a payment",
    status_code=201,
    response_description="What the money bought is taken back; the money follows.",
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
    """Give money back through the gateway, and take what it bought. Say one of these:

    - `credits`: unspent credits of a purchase, and their money; with an empty body all of them.
    - `amount_minor`: of a custom payment, which needs it, or of a plan's fee. All of the fee ends the
      subscription now, a part leaves it.
    - `gateway_payment_id`: all that an attempt took which pays for nothing (flags `paid_twice` and
      `amount_differs`); the payment's status stays.

    The status is `refunded` once the gateway says so; until it answers it is asked. If it refuses, what was
    taken is back and the payment is flagged.
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
    """Every payment, whatever became of it, newest first."""
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
    """One payment, and what it was for."""
    page = read.view(payment_queries.payment, organisation_id, payment_id)
    return schemas.OnePayment(payment=_with_remarks(read, organisation_id, page)[0], position=page.position)


@gateway_callbacks.post(
    "/v1/gateways/{gateway}/webhooks",
    operation_id="hearGateway",
    summary="Hear a gateway",
    status_code=204,
    response_description="It is taken in.",
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
    """For gateways: what they tell, signed. It may come twice, late, and in any order.

    What is about an order of somebody else with the same account is taken in and forgotten: a gateway that is
    refused for a day sends nothing any more.
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
    """Take in what a browser brings back from the gateway's page, and show the payment.

    The browser comes from another site, without our cookies: only what the gateway has signed counts.
    """
    body = await read_body(request)
    services = services_of(request)
    context = command_context.CommandContext(services.clock(), None, request.state.request_id)
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=_FIELDS_MAX))
    shown = {"payment": payment_id}
    with suppress(GatewayError, PaymentNotFound):  # what is not known yet will be asked for again
        standing = await run_in_threadpool(
            services.payment_tracking.handle_return, payment_id, fields, context
        )
        shown["organisation"] = standing.payment.terms.organisation_id
    return RedirectResponse(f"/credits/billing?{urlencode(shown)}", status_code=303)


def _payment_recorded(write: WriteRequest, standing: PaymentResult) -> schemas.PaymentRecorded:
    write.set_position_headers(standing.position, repeated=standing.repeated)
    return schemas.PaymentRecorded.of(standing)


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
