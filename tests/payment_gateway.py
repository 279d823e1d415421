"""A payment gateway in memory: the third party, with its own records of the money it moved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from itertools import count

import msgspec

from domain.payments.gateway import (
    Attempt,
    AttemptStatus,
    ChargeRequest,
    Checkout,
    GatewayNotification,
    GatewayRefund,
    GatewayRefundRequest,
    GatewayRefused,
    GatewayUnavailable,
    InvalidWebhookSignature,
    OpenedOrder,
    OrderRequest,
    RefundStatus,
    SettlementLine,
)

SIGNATURE = "signed by the gateway"


class InMemoryGateway:
    """Opens one order per payment, and refunds once per refund id. `step` may raise at any step."""

    name = "bookpay"
    supports_recurring_charges = True
    currencies = frozenset({"INR", "USD"})

    def __init__(self, step: Callable[[str], None] = lambda _: None) -> None:
        self.orders: dict[str, OrderRequest] = {}
        self.order_ids: dict[str, str] = {}
        self.attempts_of: dict[str, list[Attempt]] = {}
        self.refunds: dict[str, tuple[GatewayRefundRequest, RefundStatus]] = {}
        self.refuses_orders = False
        self.refuses_refunds = False
        self.refunds_pend = False
        self.refunds_fail = False
        self.is_down = False
        self.card_answers = AttemptStatus.CAPTURED
        self.forgotten: list[str] = []
        self._step = step
        self._numbers = count(1)

    # ------------------------------------------------------------------------------------- the port

    def open_order(self, request: OrderRequest) -> OpenedOrder:
        self._begin("open_order")
        if self.refuses_orders:
            raise GatewayRefused("no", code="BAD_REQUEST_ERROR")
        order_id = self.order_ids.setdefault(request.payment_id, f"order_{request.payment_id}")
        self.orders.setdefault(order_id, request)
        self.attempts_of.setdefault(order_id, [])
        self._step("after open_order")
        return OpenedOrder(order_id, self._page(order_id))

    def checkout(self, order_id: str, request: OrderRequest) -> Checkout:
        return self._page(order_id)

    def attempts(self, order_id: str) -> Sequence[Attempt]:
        self._begin("attempts")
        if order_id not in self.attempts_of:
            raise GatewayRefused("no such order", code="BAD_REQUEST_ERROR")
        return list(self.attempts_of[order_id])

    def verify_return(self, fields: Mapping[str, str]) -> GatewayNotification:
        return self.verify_webhook(fields.get("notice", "").encode(), {"x-signature": fields.get("by", "")})

    def verify_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayNotification:
        if headers.get("x-signature") != SIGNATURE:
            raise InvalidWebhookSignature("the signature is wrong")
        return msgspec.convert(json.loads(body), GatewayNotification)

    def refund(self, request: GatewayRefundRequest) -> GatewayRefund:
        self._begin("refund")
        if self.refuses_refunds and request.refund_id not in self.refunds:
            raise GatewayRefused("no", code="REFUND_NOT_POSSIBLE")
        if self.refunds_fail:
            return GatewayRefund("", RefundStatus.FAILED, request.amount_minor)
        status = RefundStatus.PENDING if self.refunds_pend else RefundStatus.DONE
        self.refunds[request.refund_id] = (request, status)
        self._step("after refund")
        return GatewayRefund(f"rfnd_{request.refund_id}", status, request.amount_minor)

    def charge(self, request: ChargeRequest) -> Attempt:
        self._begin("charge")
        known = self.attempts_of[request.order_id]
        if not known:
            paid = next(
                each for each in self.attempts_of.values() for a in each if self._is(a, request.mandate)
            )
            kept = self.orders[paid[0].order_id].mandate_minor
            if kept is None or request.mandate in self.forgotten or request.amount_minor > kept:
                raise GatewayRefused("no such card", code="CARD_NOT_KEPT")
            self.pay(request.order_id, self.card_answers)
        self._step("after charge")
        return self.attempts_of[request.order_id][-1]

    def forget_card(self, mandate: str) -> None:
        self._begin("forget_card")
        self.forgotten.append(mandate)

    def settlement_lines(self, first: date, last: date) -> Iterable[SettlementLine]:
        raise GatewayRefused("no list is kept")

    # ----------------------------------------------------------------------------------- the payer

    def pay(
        self,
        order_id: str,
        status: AttemptStatus = AttemptStatus.CAPTURED,
        *,
        amount_minor: int | None = None,
        reason: str | None = None,
    ) -> Attempt:
        """Attempt to pay an order on the gateway's page."""
        order = self.orders[order_id]
        attempt = Attempt(
            f"pay_{next(self._numbers)}_{order_id}",
            order_id,
            status,
            order.amount_minor if amount_minor is None else amount_minor,
            order.currency,
            reason=reason,
        )
        self.attempts_of[order_id].append(attempt)
        return attempt

    def notification_of(self, attempt: Attempt) -> bytes:
        """Return the body of the webhook about an attempt."""
        notification = GatewayNotification(f"notice-{next(self._numbers)}", "payment", attempt)
        return msgspec.json.encode(notification)

    @property
    def taken_minor(self) -> int:
        """The captured money minus the refunded money."""
        taken = sum(
            attempt.amount_minor
            for attempts in self.attempts_of.values()
            for attempt in attempts
            if attempt.status is AttemptStatus.CAPTURED
        )
        return taken - sum(request.amount_minor for request, _ in self.refunds.values())

    def _begin(self, name: str) -> None:
        self._step(f"before {name}")
        if self.is_down:
            raise GatewayUnavailable("the gateway is down")

    @staticmethod
    def _is(attempt: Attempt, mandate: str) -> bool:
        return attempt.gateway_payment_id == mandate and attempt.status is AttemptStatus.CAPTURED

    def _page(self, order_id: str) -> Checkout:
        return Checkout(f"https://pay.example/page?order={order_id}")
