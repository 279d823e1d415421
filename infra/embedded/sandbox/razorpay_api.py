"""The part of Razorpay's REST API that the ledger uses, with Razorpay's refusals, on the sandbox's book."""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from infra.embedded.sandbox.book import CAPTURED, Book, Order, Payment
from infra.embedded.sandbox.razorpay_wire import (
    GATEWAY,
    order_entity,
    payment_entity,
    recon_items,
    refund_entity,
)

_CURRENCIES: Final = frozenset({"INR", "USD"})
_LEAST_MINOR: Final = 100
_RECEIPT_CHARACTERS: Final = 40
_INDIA: Final = timezone(timedelta(hours=5, minutes=30))
_RECON_PAGE: Final = 1_000


class ApiError(Exception):
    """An error as Razorpay answers it."""

    def __init__(self, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.status = status


def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Return Razorpay's body of an error."""
    status = error.status if isinstance(error, ApiError) else 400
    described = {"code": "BAD_REQUEST_ERROR", "description": str(error), "source": "business"}
    return JSONResponse({"error": {**described, "reason": "input_validation_failed", "metadata": {}}}, status)


async def _read_body(request: Request) -> dict[str, Any]:
    try:
        return msgspec.json.decode(await request.body(), type=dict[str, Any])
    except (ValueError, msgspec.MsgspecError):
        raise ApiError("The request body is no JSON object") from None


Body = Annotated[dict[str, Any], Depends(_read_body)]


def razorpay_router(book: Book, key_id: str, key_secret: str) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(_asking_for_keys(key_id, key_secret))])

    @router.post("/orders")
    def create_order(body: Body) -> dict[str, Any]:
        amount, currency, receipt = body.get("amount"), body.get("currency"), body.get("receipt")
        if not isinstance(amount, int) or amount < _LEAST_MINOR:
            raise ApiError("Order amount less than minimum amount allowed")
        if currency not in _CURRENCIES:
            raise ApiError("Currency is not supported")
        if not isinstance(receipt, str) or len(receipt) > _RECEIPT_CHARACTERS:
            raise ApiError("The receipt may not be greater than 40 characters.")
        return order_entity(book, book.add_order(GATEWAY, "order_", receipt, amount, currency))

    @router.get("/orders")
    def orders(receipt: str | None = None) -> dict[str, Any]:
        found = [order for order in book.contents.orders if order.gateway == GATEWAY]
        asked = [order for order in found if receipt is None or order.receipt == receipt]
        return _collection([order_entity(book, order) for order in reversed(asked)])

    @router.get("/orders/{order_id}/payments")
    def payments(order_id: str) -> dict[str, Any]:
        order = _order(book, order_id)
        found = [payment_entity(book, payment) for payment in book.payments_of(order.id)]
        return _collection(list(reversed(found)))

    @router.post("/payments/{payment_id}/capture")
    def capture(payment_id: str, body: Body) -> dict[str, Any]:
        payment = _payment(book, payment_id)
        if body.get("amount") != payment.amount_minor:
            raise ApiError("Capture amount must be equal to the amount authorized")
        book.move(payment, CAPTURED)
        return payment_entity(book, payment)

    @router.post("/payments/{payment_id}/refund")
    def refund(payment_id: str, body: Body, request: Request) -> dict[str, Any]:
        payment = _payment(book, payment_id)
        key = request.headers.get("x-refund-idempotency")
        asked = msgspec.json.encode(body, order="sorted").decode()
        for known in book.contents.refunds:
            if key is not None and known.key == key:
                if known.asked != asked:
                    raise ApiError(
                        "Different request with the same idempotency key has already been processed."
                    )
                return refund_entity(book, known)
        amount = body.get("amount", payment.amount_minor)
        receipt = body.get("receipt")
        made = book.add_refund(payment, amount, prefix="rfnd_", receipt=receipt, key=key, asked=asked)
        return refund_entity(book, made)

    @router.get("/payments/{payment_id}/refunds")
    def refunds(payment_id: str) -> dict[str, Any]:
        payment = _payment(book, payment_id)
        return _collection([refund_entity(book, refund) for refund in book.refunds_of(payment.id)])

    @router.get("/settlements/recon/combined")
    def recon(
        year: int, month: int, day: int | None = None, count: int = 10, skip: int = 0
    ) -> dict[str, Any]:
        def settled_then(item: dict[str, Any]) -> bool:
            at = datetime.fromtimestamp(item["settled_at"], UTC).astimezone(_INDIA)
            return (at.year, at.month) == (year, month) and day in {None, at.day}

        items = [item for item in recon_items(book) if settled_then(item)]
        return _collection(items[skip : skip + min(count, _RECON_PAGE)])

    return router


def _asking_for_keys(key_id: str, key_secret: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = f"{key_id}:{key_secret}".encode()
        try:
            authentic = scheme.lower() == "basic" and hmac.compare_digest(b64decode(given), expected)
        except ValueError:
            authentic = False
        if not authentic:
            raise ApiError("Authentication failed", 401)

    return check


def _order(book: Book, order_id: str) -> Order:
    order = book.order(order_id)
    if order is None or order.gateway != GATEWAY:
        raise ApiError("The id provided does not exist")
    return order


def _payment(book: Book, payment_id: str) -> Payment:
    payment = book.payment(payment_id)
    if payment is None:
        raise ApiError("The id provided does not exist")
    return payment


def _collection(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"entity": "collection", "count": len(items), "items": items}
