"""The outcomes that a payer can choose on the checkout page, and the browser's return to the merchant."""

from __future__ import annotations

import hmac
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

import msgspec

from infra.embedded.gateway_sandbox.payglocal_wire import GATEWAY as PAYGLOCAL
from infra.embedded.gateway_sandbox.payglocal_wire import PayGlocalTokenCodec
from infra.embedded.gateway_sandbox.state import (
    AUTHORIZED,
    CANCELLED,
    CAPTURED,
    FAILED,
    PENDING,
    Order,
    Payment,
    RequestRejected,
    SandboxState,
    new_id,
)

DELAY_S: Final = 5.0


class Outcome(StrEnum):
    """A button of the checkout page."""

    PAY = "pay"
    FAIL = "fail"
    CANCEL = "cancel"
    PENDING = "pending"
    LATE = "late"
    TWICE = "twice"
    AUTHORIZE = "authorize"
    OTHER_AMOUNT = "other-amount"


_STATUS: Final = {
    Outcome.PAY: CAPTURED,
    Outcome.FAIL: FAILED,
    Outcome.CANCEL: CANCELLED,
    Outcome.PENDING: PENDING,
    Outcome.LATE: PENDING,
    Outcome.TWICE: CAPTURED,
    Outcome.AUTHORIZE: AUTHORIZED,
    Outcome.OTHER_AMOUNT: CAPTURED,
}
_REASON: Final = {Outcome.FAIL: "payment_failed", Outcome.CANCEL: "payment_cancelled"}


class ReturnRedirect(msgspec.Struct, frozen=True):
    """The browser's return to the merchant: a link, or with method "post" a form."""

    url: str
    method: str = "get"
    fields: dict[str, str] = {}


def available_outcomes(order: Order) -> list[Outcome]:
    """Return the buttons for an order. A PayGlocal transaction has one payment, which is captured at once."""
    return [
        outcome
        for outcome in Outcome
        if order.gateway != PAYGLOCAL or outcome not in {Outcome.TWICE, Outcome.AUTHORIZE}
    ]


def apply_outcome(
    state: SandboxState, order: Order, outcome: Outcome, amount_minor: int | None, *, late_s: float
) -> Payment | None:
    """Apply the outcome of a button. Return the created payment, or None.

    Raises:
        RequestRejected: the order is paid, or the transaction is finished.
    """
    existing = state.payments_of(order.id)
    if any(payment.was_captured for payment in existing) or (existing and order.gateway == PAYGLOCAL):
        raise RequestRejected("This order is already paid or cancelled: start a new one")
    if outcome is Outcome.CANCEL and order.gateway != PAYGLOCAL:
        return None  # Razorpay only returns the browser and creates no payment
    payments = [
        state.add_payment(
            order,
            _STATUS[outcome],
            payment_id=order.id if order.gateway == PAYGLOCAL else new_id("pay_"),
            amount_minor=amount_minor if outcome is Outcome.OTHER_AMOUNT else None,
            reason=_REASON.get(outcome),
            captures_in_s=late_s if outcome is Outcome.LATE else None,
        )
        for _ in range(2 if outcome is Outcome.TWICE else 1)
    ]
    return payments[0]


class ReturnRedirects:
    """Builds the browser's return with the gateway's signature."""

    def __init__(self, razorpay_secret: str, payglocal: PayGlocalTokenCodec) -> None:
        self._razorpay_secret = razorpay_secret.encode()
        self._payglocal = payglocal

    def of(self, order: Order, payment: Payment | None) -> ReturnRedirect:
        """Return the browser's redirect. Razorpay signs nothing before a decision, PayGlocal always signs."""
        if order.gateway == PAYGLOCAL:
            assert payment is not None
            token = self._payglocal.return_token(order, payment)
            return ReturnRedirect(order.return_url, "post", {"x-gl-token": token})
        if payment is None or payment.status == PENDING:
            return ReturnRedirect(order.cancel_url)
        if payment.status == FAILED:
            return ReturnRedirect(order.return_url, "post", _failure(order, payment))
        return ReturnRedirect(order.return_url, "post", self._signed(order, payment))

    def _signed(self, order: Order, payment: Payment) -> dict[str, str]:
        message = f"{order.id}|{payment.id}".encode()
        return {
            "razorpay_payment_id": payment.id,
            "razorpay_order_id": order.id,
            "razorpay_signature": hmac.new(self._razorpay_secret, message, sha256).hexdigest(),
        }


def _failure(order: Order, payment: Payment) -> dict[str, str]:
    metadata: dict[str, Any] = {"payment_id": payment.id, "order_id": order.id}
    return {
        "error[code]": "BAD_REQUEST_ERROR",
        "error[description]": "Payment failed",
        "error[source]": "bank",
        "error[step]": "payment_authorization",
        "error[reason]": payment.reason or "payment_failed",
        "error[metadata]": msgspec.json.encode(metadata).decode(),
    }
