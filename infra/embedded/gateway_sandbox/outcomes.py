"""What a payer can do on the sandbox's page, and the way back that each gateway gives the browser."""

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
    """A button of the page."""

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
    """Where the browser goes from the page: a link, or with "post" a form to send."""

    url: str
    method: str = "get"
    fields: dict[str, str] = {}


def available_outcomes(order: Order) -> list[Outcome]:
    """Return the buttons of an order's page. A PayGlocal transaction is paid once, and captured at once."""
    return [
        outcome
        for outcome in Outcome
        if order.gateway != PAYGLOCAL or outcome not in {Outcome.TWICE, Outcome.AUTHORIZE}
    ]


def apply_outcome(
    state: SandboxState, order: Order, outcome: Outcome, amount_minor: int | None, *, late_s: float
) -> Payment | None:
    """Do what a button says, and return the payment it made, if any.

    Raises:
        Refused: the order is paid, or the transaction over.
    """
    tried = state.payments_of(order.id)
    if any(payment.was_captured for payment in tried) or (tried and order.gateway == PAYGLOCAL):
        raise RequestRejected("This order has been paid, or given up: start a new one")
    if outcome is Outcome.CANCEL and order.gateway != PAYGLOCAL:
        return None  # Razorpay sends the browser back, and makes no payment
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
    """Makes the way back, signed as the gateway signs it."""

    def __init__(self, razorpay_secret: str, payglocal: PayGlocalTokenCodec) -> None:
        self._razorpay_secret = razorpay_secret.encode()
        self._payglocal = payglocal

    def of(self, order: Order, payment: Payment | None) -> ReturnRedirect:
        """Return where the browser goes. Razorpay has nothing to say before a decision, PayGlocal always."""
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
