"""The part of PayGlocal's API that the ledger uses, on the sandbox's state."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from infra.embedded.gateway_sandbox.payglocal_wire import (
    GATEWAY,
    PayGlocalTokenCodec,
    decimal,
    envelope,
    transaction,
)
from infra.embedded.gateway_sandbox.state import Refund, RequestRejected, SandboxState
from infra.payments.gateways.payglocal_tokens import InvalidToken

INITIATE: Final = "/gl/v1/payments/initiate/paycollect"
PAGE: Final = "/gl/payflow-ui/"


class PayGlocalApiError(Exception):
    """An error in PayGlocal's format."""

    def __init__(self, status: int, reason_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason_code = reason_code


def payglocal_error_response(_: Request, error: Exception) -> JSONResponse:
    """Return the error response of PayGlocal."""
    if not isinstance(error, PayGlocalApiError):
        raise error
    body = {"gid": None, "status": "REQUEST_ERROR", "message": str(error), "reasonCode": error.reason_code}
    return JSONResponse({**body, "data": None, "errors": {"displayMessage": str(error)}}, error.status)


def payglocal_router(state: SandboxState, token_codec: PayGlocalTokenCodec) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.post(INITIATE)
    async def initiate(request: Request) -> dict[str, Any]:
        payload = await _read(request, token_codec)
        receipt, callback = payload.get("merchantTxnId"), payload.get("merchantCallbackURL")
        data = payload.get("paymentData") or {}
        if not isinstance(receipt, str) or not isinstance(callback, str):
            raise PayGlocalApiError(400, "GL-400-003", "Request missing merchantTxnID")
        if data.get("txnCurrency") not in {"USD", "INR"}:
            raise PayGlocalApiError(400, "GL-400-002", "Request contains invalid data")
        if _find(state, receipt) is not None:
            raise PayGlocalApiError(400, "GL-400-002", "Duplicate merchantTxnId")
        amount_minor = _minor(data.get("totalAmount"))
        order = state.add_order(GATEWAY, "gl_o-", receipt, amount_minor, data["txnCurrency"])
        state.set_checkout(order, return_url=callback, cancel_url="", title="")
        token = token_codec.sign({"x-gl-gid": order.id, "x-gl-merchantId": token_codec.merchant_id})
        base = str(request.base_url).rstrip("/")
        links = {
            "redirectUrl": f"{base}{PAGE}?x-gl-token={token}",
            "statusUrl": f"{base}/gl/v1/payments/{order.id}/status?x-gl-token={token}",
            "merchantTxnId": receipt,
        }
        return envelope("INPROGRESS", "Transaction Created Successfully", order.id, links)

    @router.get("/gl/v1/payments/{gid}/status")
    def status(gid: str, request: Request) -> dict[str, Any]:
        _check_signature(request, token_codec, request.scope["raw_path"].decode())
        refund = _find_refund(state, gid)
        if refund is not None:
            return _refund_response(state, refund)
        order = state.order(gid) or _find(state, gid)
        if order is None or order.gateway != GATEWAY:
            raise PayGlocalApiError(404, "GL-400-999", "Transaction not found")
        return transaction(state, order)

    @router.post("/gl/v1/payments/{gid}/refund")
    async def refund(gid: str, request: Request) -> dict[str, Any]:
        payload = await _read(request, token_codec)
        payment = state.payment(gid)
        receipt = payload.get("merchantTxnId")
        if payment is None:
            raise PayGlocalApiError(404, "GL-400-999", "Transaction not found")
        if not isinstance(receipt, str):
            raise PayGlocalApiError(400, "GL-400-003", "Request missing merchantTxnID")
        if _find_refund(state, receipt) is not None:
            raise PayGlocalApiError(409, "GL-400-002", "Duplicate refund request")
        refundable_minor = payment.amount_minor - state.refunded_minor(payment)
        requested = (payload.get("paymentData") or {}).get("totalAmount")
        amount_minor = refundable_minor if payload.get("refundType") == "F" else _minor(requested)
        try:
            added = state.add_refund(payment, amount_minor, prefix="RFD-", receipt=receipt)
        except RequestRejected as error:
            raise PayGlocalApiError(400, "GL-400-006", str(error)) from None
        return _refund_response(state, added)

    return router


async def _read(request: Request, token_codec: PayGlocalTokenCodec) -> dict[str, Any]:
    body = (await request.body()).decode(errors="replace")
    _check_signature(request, token_codec, body)
    try:
        return token_codec.decrypt(body)
    except InvalidToken:
        raise PayGlocalApiError(400, "GL-400-002", "Request cannot be decrypted") from None


def _check_signature(request: Request, token_codec: PayGlocalTokenCodec, content: str) -> None:
    if not token_codec.is_signed(request.headers.get("x-gl-token-external", ""), content):
        raise PayGlocalApiError(401, "GL-400-001", "Declined by System")


def _find(state: SandboxState, receipt: str) -> Any:
    found = (order for order in state.contents.orders if order.gateway == GATEWAY)
    return next((order for order in found if order.receipt == receipt), None)


def _find_refund(state: SandboxState, receipt: str) -> Refund | None:
    for refund in state.contents.refunds:
        order = state.order(refund.payment_id)
        if refund.receipt == receipt and order is not None and order.gateway == GATEWAY:
            return refund
    return None


def _refund_response(state: SandboxState, refund: Refund) -> dict[str, Any]:
    payment = state.payment(refund.payment_id)
    data = {
        "Amount": decimal(refund.amount_minor),
        "Currency": payment.currency if payment else "",
        "merchantTxnId": refund.receipt,
        "refundId": refund.id,
    }
    return envelope("SENT_FOR_REFUND", "Refund Initiated Successfully", refund.payment_id, data)


def _minor(amount: object) -> int:
    try:
        minor = Decimal(str(amount)) * 100
    except InvalidOperation:
        raise PayGlocalApiError(400, "GL-400-002", "Request contains invalid data") from None
    if minor != int(minor) or minor <= 0:
        raise PayGlocalApiError(400, "GL-400-002", "Request contains invalid data")
    return int(minor)
