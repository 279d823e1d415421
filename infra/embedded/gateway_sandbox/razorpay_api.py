"""The part of Razorpay's REST API that the ledger uses, with Razorpay's errors, on the sandbox's state."""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b, sha256
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from infra.embedded.gateway_sandbox.razorpay_wire import (
    GATEWAY,
    order_entity,
    payment_entity,
    recon_items,
    refund_entity,
)
from infra.embedded.gateway_sandbox.state import (
    CAPTURED,
    FAILED,
    PENDING,
    Order,
    Payment,
    SandboxState,
    new_id,
)

_CURRENCIES: Final = frozenset({"INR", "USD"})
_AMOUNT_MINOR_MIN: Final = 100
_RECEIPT_CHARACTERS: Final = 40
_INDIA: Final = timezone(timedelta(hours=5, minutes=30))
_RECON_PAGE: Final = 1_000


class RazorpayApiError(Exception):
    """An error in Razorpay's format."""

    def __init__(self, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.status = status


def razorpay_error_response(_: Request, error: Exception) -> JSONResponse:
    """Return the error response of Razorpay."""
    status = error.status if isinstance(error, RazorpayApiError) else 400
    common = {"code": "BAD_REQUEST_ERROR", "description": str(error), "source": "business"}
    return JSONResponse({"error": {**common, "reason": "input_validation_failed", "metadata": {}}}, status)


async def _read_body(request: Request) -> dict[str, Any]:
    try:
        return msgspec.json.decode(await request.body(), type=dict[str, Any])
    except (ValueError, msgspec.MsgspecError):
        raise RazorpayApiError("The request body is not a JSON object") from None


Body = Annotated[dict[str, Any], Depends(_read_body)]


def razorpay_router(state: SandboxState, key_id: str, key_secret: str) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(_require_api_keys(key_id, key_secret))])

    @router.post("/orders")
    def create_order(body: Body) -> dict[str, Any]:
        amount, currency, receipt = body.get("amount"), body.get("currency"), body.get("receipt")
        if not isinstance(amount, int) or amount < _AMOUNT_MINOR_MIN:
            raise RazorpayApiError("Order amount less than minimum amount allowed")
        if currency not in _CURRENCIES:
            raise RazorpayApiError("Currency is not supported")
        if not isinstance(receipt, str) or len(receipt) > _RECEIPT_CHARACTERS:
            raise RazorpayApiError("The receipt may not be greater than 40 characters.")
        token, customer_id = body.get("token"), body.get("customer_id", "")
        if token is not None and not customer_id:
            raise RazorpayApiError("The customer id field is required when token is present.")
        added = state.add_order(
            GATEWAY,
            "order_",
            receipt,
            amount,
            currency,
            customer_id=customer_id,
            mandate_minor=0 if token is None else int(token["max_amount"]),
        )
        return order_entity(state, added)

    @router.get("/orders")
    def orders(receipt: str | None = None) -> dict[str, Any]:
        found = [order for order in state.contents.orders if order.gateway == GATEWAY]
        matching = [order for order in found if receipt is None or order.receipt == receipt]
        return _collection([order_entity(state, order) for order in reversed(matching)])

    @router.get("/orders/{order_id}")
    def order(order_id: str) -> dict[str, Any]:
        return order_entity(state, _order(state, order_id))

    @router.get("/orders/{order_id}/payments")
    def payments(order_id: str) -> dict[str, Any]:
        order = _order(state, order_id)
        found = [payment_entity(state, payment) for payment in state.payments_of(order.id)]
        return _collection(list(reversed(found)))

    @router.post("/payments/{payment_id}/capture")
    def capture(payment_id: str, body: Body) -> dict[str, Any]:
        payment = _payment(state, payment_id)
        if body.get("amount") != payment.amount_minor:
            raise RazorpayApiError("Capture amount must be equal to the amount authorized")
        state.change_status(payment, CAPTURED)
        return payment_entity(state, payment)

    @router.post("/payments/{payment_id}/refund")
    def refund(payment_id: str, body: Body, request: Request) -> dict[str, Any]:
        payment = _payment(state, payment_id)
        key = request.headers.get("x-refund-idempotency")
        request_body = msgspec.json.encode(body, order="sorted").decode()
        with state.transaction() as contents:  # the lock prevents a double refund by concurrent requests
            for known in contents.refunds:
                if key is not None and known.key == key:
                    if known.asked != request_body:
                        raise RazorpayApiError(
                            "Different request with the same idempotency key has already been processed."
                        )
                    return refund_entity(state, known)
            amount = body.get("amount", payment.amount_minor)
            receipt = body.get("receipt")
            added = state.add_refund(
                payment, amount, prefix="rfnd_", receipt=receipt, key=key, asked=request_body
            )
            return refund_entity(state, added)

    @router.get("/payments/{payment_id}/refunds")
    def refunds(payment_id: str) -> dict[str, Any]:
        payment = _payment(state, payment_id)
        return _collection([refund_entity(state, refund) for refund in state.refunds_of(payment.id)])

    @router.get("/settlements/recon/combined")
    def recon(
        year: int, month: int, day: int | None = None, count: int = 10, skip: int = 0
    ) -> dict[str, Any]:
        def is_in_period(item: dict[str, Any]) -> bool:
            at = datetime.fromtimestamp(item["settled_at"], UTC).astimezone(_INDIA)
            return (at.year, at.month) == (year, month) and day in {None, at.day}

        items = [item for item in recon_items(state) if is_in_period(item)]
        return _collection(items[skip : skip + min(count, _RECON_PAGE)])

    router.include_router(_recurring_router(state, key_secret))
    return router


def _recurring_router(state: SandboxState, key_secret: str) -> APIRouter:
    """Return the routes for saved cards and their later charges."""
    router = APIRouter()

    @router.post("/customers")
    def create_customer(body: Body) -> dict[str, Any]:
        details = {name: body.get(name) for name in ("name", "email", "contact")}
        # The same details give the same customer, as `fail_existing` 0 requires.
        known = blake2b(msgspec.json.encode(details, order="sorted"), digest_size=7).hexdigest()
        return {"id": f"cust_{known}", "entity": "customer", **details, "gstin": None, "notes": []}

    @router.get("/payments/{payment_id}")
    def payment(payment_id: str) -> dict[str, Any]:
        return payment_entity(state, _payment(state, payment_id))

    @router.post("/payments/create/recurring")
    def charge(body: Body) -> dict[str, Any]:
        order, card = _order(state, str(body.get("order_id"))), state.card(str(body.get("token")))
        if card is None or not card.answers or card.customer_id != body.get("customer_id"):
            raise RazorpayApiError("The id provided does not exist")
        if not body.get("email") or not body.get("contact"):
            raise RazorpayApiError("The email and contact fields are required.")
        if (body.get("amount"), body.get("currency")) != (order.amount_minor, order.currency):
            raise RazorpayApiError("Your payment amount is different from your order amount.")
        if order.amount_minor > card.most_minor:
            raise RazorpayApiError("The amount exceeds the maximum amount of the token.")
        if state.paid_minor(order) or any(each.status == PENDING for each in state.payments_of(order.id)):
            raise RazorpayApiError("Payment already done for this order.")
        reason = "payment_failed" if card.answers == FAILED else None
        added = state.add_payment(order, card.answers, payment_id=new_id("pay_"), reason=reason)
        if added.status == FAILED:
            raise RazorpayApiError("Your payment has been declined as the card was refused by its bank.")
        signed = hmac.new(key_secret.encode(), f"{order.id}|{added.id}".encode(), sha256).hexdigest()
        return {
            "razorpay_payment_id": added.id,
            "razorpay_order_id": order.id,
            "razorpay_signature": signed,
        }

    @router.delete("/customers/{customer_id}/tokens/{token_id}")
    def forget(customer_id: str, token_id: str) -> dict[str, Any]:
        card = state.card(token_id)
        if card is None or card.customer_id != customer_id:
            raise RazorpayApiError("The id provided does not exist")
        state.set_card_outcome(card, "")
        return {"deleted": True}

    return router


def _require_api_keys(key_id: str, key_secret: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = f"{key_id}:{key_secret}".encode()
        try:
            authentic = scheme.lower() == "basic" and hmac.compare_digest(b64decode(given), expected)
        except ValueError:
            authentic = False
        if not authentic:
            raise RazorpayApiError("Authentication failed", 401)

    return check


def _order(state: SandboxState, order_id: str) -> Order:
    order = state.order(order_id)
    if order is None or order.gateway != GATEWAY:
        raise RazorpayApiError("The id provided does not exist")
    return order


def _payment(state: SandboxState, payment_id: str) -> Payment:
    payment = state.payment(payment_id)
    if payment is None:
        raise RazorpayApiError("The id provided does not exist")
    return payment


def _collection(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"entity": "collection", "count": len(items), "items": items}
