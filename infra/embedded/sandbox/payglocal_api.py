"""The part of PayGlocal's API that the ledger uses, on the sandbox's book."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from infra.embedded.sandbox.book import Book, Refund, Refused
from infra.embedded.sandbox.payglocal_wire import GATEWAY, PayGlocalEnd, decimal, envelope, transaction
from infra.gateways.payglocal_tokens import WrongToken

INITIATE: Final = "/gl/v1/payments/initiate/paycollect"
PAGE: Final = "/gl/payflow-ui/"


class Declined(Exception):
    """An error as PayGlocal answers it."""

    def __init__(self, status: int, reason_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason_code = reason_code


def answer_declined(_: Request, error: Exception) -> JSONResponse:
    """Return PayGlocal's body of an error."""
    if not isinstance(error, Declined):
        raise error
    told = {"gid": None, "status": "REQUEST_ERROR", "message": str(error), "reasonCode": error.reason_code}
    return JSONResponse({**told, "data": None, "errors": {"displayMessage": str(error)}}, error.status)


def payglocal_router(book: Book, end: PayGlocalEnd) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.post(INITIATE)
    async def initiate(request: Request) -> dict[str, Any]:
        asked = await _read(request, end)
        receipt, callback = asked.get("merchantTxnId"), asked.get("merchantCallbackURL")
        data = asked.get("paymentData") or {}
        if not isinstance(receipt, str) or not isinstance(callback, str):
            raise Declined(400, "GL-400-003", "Request missing merchantTxnID")
        if data.get("txnCurrency") not in {"USD", "INR"}:
            raise Declined(400, "GL-400-002", "Request contains invalid data")
        if _find(book, receipt) is not None:
            raise Declined(400, "GL-400-002", "Duplicate merchantTxnId")
        amount_minor = _minor(data.get("totalAmount"))
        order = book.add_order(GATEWAY, "gl_o-", receipt, amount_minor, data["txnCurrency"])
        book.show(order, return_url=callback, cancel_url="", title="")
        token = end.sign({"x-gl-gid": order.id, "x-gl-merchantId": end.merchant_id})
        base = str(request.base_url).rstrip("/")
        way = {
            "redirectUrl": f"{base}{PAGE}?x-gl-token={token}",
            "statusUrl": f"{base}/gl/v1/payments/{order.id}/status?x-gl-token={token}",
            "merchantTxnId": receipt,
        }
        return envelope("INPROGRESS", "Transaction Created Successfully", order.id, way)

    @router.get("/gl/v1/payments/{gid}/status")
    def status(gid: str, request: Request) -> dict[str, Any]:
        _check_signature(request, end, request.scope["raw_path"].decode())
        refund = _find_refund(book, gid)
        if refund is not None:
            return _refund_answer(book, refund)
        order = book.order(gid) or _find(book, gid)
        if order is None or order.gateway != GATEWAY:
            raise Declined(404, "GL-400-999", "Transaction not found")
        return transaction(book, order)

    @router.post("/gl/v1/payments/{gid}/refund")
    async def refund(gid: str, request: Request) -> dict[str, Any]:
        asked = await _read(request, end)
        payment = book.payment(gid)
        receipt = asked.get("merchantTxnId")
        if payment is None:
            raise Declined(404, "GL-400-999", "Transaction not found")
        if not isinstance(receipt, str):
            raise Declined(400, "GL-400-003", "Request missing merchantTxnID")
        if _find_refund(book, receipt) is not None:
            raise Declined(409, "GL-400-002", "Duplicate refund request")
        left_minor = payment.amount_minor - book.refunded_minor(payment)
        given = (asked.get("paymentData") or {}).get("totalAmount")
        amount_minor = left_minor if asked.get("refundType") == "F" else _minor(given)
        try:
            made = book.add_refund(payment, amount_minor, prefix="RFD-", receipt=receipt)
        except Refused as error:
            raise Declined(400, "GL-400-006", str(error)) from None
        return _refund_answer(book, made)

    return router


async def _read(request: Request, end: PayGlocalEnd) -> dict[str, Any]:
    body = (await request.body()).decode(errors="replace")
    _check_signature(request, end, body)
    try:
        return end.decrypt(body)
    except WrongToken:
        raise Declined(400, "GL-400-002", "Request cannot be decrypted") from None


def _check_signature(request: Request, end: PayGlocalEnd, content: str) -> None:
    if not end.is_signed(request.headers.get("x-gl-token-external", ""), content):
        raise Declined(401, "GL-400-001", "Declined by System")


def _find(book: Book, receipt: str) -> Any:
    found = (order for order in book.contents.orders if order.gateway == GATEWAY)
    return next((order for order in found if order.receipt == receipt), None)


def _find_refund(book: Book, receipt: str) -> Refund | None:
    for refund in book.contents.refunds:
        order = book.order(refund.payment_id)
        if refund.receipt == receipt and order is not None and order.gateway == GATEWAY:
            return refund
    return None


def _refund_answer(book: Book, refund: Refund) -> dict[str, Any]:
    payment = book.payment(refund.payment_id)
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
        raise Declined(400, "GL-400-002", "Request contains invalid data") from None
    if minor != int(minor) or minor <= 0:
        raise Declined(400, "GL-400-002", "Request contains invalid data")
    return int(minor)
