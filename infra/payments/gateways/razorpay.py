"""Adapter for Razorpay with its official Python client: orders, checkout, webhooks, refunds, settlements.

Our pages load no Razorpay script: the browser posts a form to Razorpay's hosted checkout.
https://razorpay.com/docs/payments/payment-gateway/web-integration/hosted
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b, sha256
from typing import Any, Final

import msgspec
import razorpay
from razorpay.errors import SignatureVerificationError

from domain.payments.gateway import (
    Attempt,
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
    Payer,
    SettlementLine,
)
from infra.payments.gateways import razorpay_entities as entities
from infra.payments.gateways.transport import Transport

LIVE_URL: Final = "https://api.razorpay.com"
SETTLES_WITHIN: Final = timedelta(days=12)
"""T+7 working days for international payments, T+2 for domestic payments."""

_PAGE_OF_PAYMENTS: Final = 100
_PAGE_OF_SETTLEMENTS: Final = 1_000
_RETURN_FIELDS: Final = ("razorpay_order_id", "razorpay_payment_id", "razorpay_signature")
_FAILED_RETURN: Final = "error[metadata]"
_IDEMPOTENCY_KEY: Final = re.compile(r"[A-Za-z0-9_-]{10,}")


class RazorpayGateway:
    """Implements the gateway port with Razorpay. Threads may share it."""

    name = "razorpay"
    supports_recurring_charges = True
    settlement_delay_max = SETTLES_WITHIN

    def __init__(
        self,
        key_id: str,
        key_secret: str,
        webhook_secret: str,
        *,
        currencies: frozenset[str],
        merchant_name: str,
        clock: Callable[[], datetime],
        url: str = LIVE_URL,
        timeout_s: float = 10.0,
    ) -> None:
        self._key_id = key_id
        self._webhook_secret = webhook_secret.encode()
        self._currencies = currencies
        self._merchant_name = merchant_name
        self._clock = clock
        self._url = url.rstrip("/")
        self._transport = Transport(self.name, timeout_s, _explain)
        # The client prints errors and hides the HTTP status, so our transport raises first.
        self._client = razorpay.Client(session=self._transport, auth=(key_id, key_secret), base_url=self._url)

    @property
    def currencies(self) -> frozenset[str]:
        """ISO 4217 codes of the accepted currencies."""
        return self._currencies

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def open_order(self, request: OrderRequest) -> OpenedOrder:
        """Open an order with our payment id as its receipt, or return the existing order of that receipt."""
        answer = self._client.order.all({"receipt": request.payment_id})
        known = entities.parse_all(answer, entities.Order)
        order = known[-1] if known else self._create_order(request)
        if (order.amount, order.currency) != (request.amount_minor, request.currency):
            raise GatewayRefused(
                f"razorpay has an order for {request.payment_id} with another amount", code="ORDER_DIFFERS"
            )
        return OpenedOrder(order.id, self._checkout(order, request))

    def checkout(self, order_id: str, request: OrderRequest) -> Checkout:
        """Return the form that opens the hosted checkout."""
        order = entities.Order(order_id, request.amount_minor, request.currency)
        if request.mandate_minor is not None:  # the form needs the order's customer
            order = entities.parse(self._client.order.fetch(order_id), entities.Order)
        return self._checkout(order, request)

    def _checkout(self, order: entities.Order, request: OrderRequest) -> Checkout:
        fields = {
            "key_id": self._key_id,
            "order_id": order.id,
            "customer_id": order.customer_id or "",
            "recurring": "" if request.mandate_minor is None else "1",
            "amount": str(request.amount_minor),
            "currency": request.currency,
            "name": self._merchant_name,
            "description": request.description,
            "callback_url": request.return_url,
            "cancel_url": request.cancel_url,
            "prefill[name]": request.payer.name,
            "prefill[email]": request.payer.email,
            "prefill[contact]": request.payer.phone,
        }
        known = {name: value for name, value in fields.items() if value}
        return Checkout(f"{self._url}/v1/checkout/embedded", "POST", known)

    def attempts(self, order_id: str) -> Sequence[Attempt]:
        """Return the attempts of an order, oldest first. Captures one that is only authorized."""
        payments = self._payments(order_id)
        authorized = [payment for payment in payments if payment.is_only_authorized]
        if authorized and not any(payment.status == "captured" for payment in payments):
            self._capture(authorized[0])
            payments = self._payments(order_id)
        return [payment.attempt() for payment in sorted(payments, key=lambda payment: payment.created_at)]

    def charge(self, request: ChargeRequest) -> Attempt:
        """Charge the card that an earlier payment saved (its token) for another order.

        Razorpay has no idempotency key for this call. So an order with a payment is not charged again, and
        Razorpay accepts no second payment for a paid order. A bank may first notify the card holder and
        decide a day later.
        """
        known = self.attempts(request.order_id)
        if known:
            return known[-1]
        saved = self._saved_card(request.mandate)
        if saved is None:
            raise GatewayRefused("razorpay has no saved card for this payment", code="CARD_NOT_KEPT")
        payer, customer_id, token_id = saved
        try:
            self._client.payment.createRecurring(
                {
                    "email": payer.email or "",
                    "contact": payer.contact or "",
                    "amount": request.amount_minor,
                    "currency": request.currency,
                    "order_id": request.order_id,
                    "customer_id": customer_id,
                    "token": token_id,
                    "recurring": "1",
                    "description": request.description,
                }
            )
        except GatewayRefused:
            known = self.attempts(request.order_id)
            if not known:
                raise
            return known[-1]
        known = self.attempts(request.order_id)
        if not known:
            raise GatewayUnavailable("razorpay has charged a card, but does not list the payment yet")
        return known[-1]

    def forget_card(self, mandate: str) -> None:
        """Delete the card token that a payment saved."""
        saved = self._saved_card(mandate)
        if saved is not None:
            self._client.token.delete(saved[1], saved[2])

    def _saved_card(self, gateway_payment_id: str) -> tuple[entities.Payment, str, str] | None:
        """Return a payment with the customer id and token id of its saved card; None if it saved none."""
        payment = entities.parse(self._client.payment.fetch(gateway_payment_id), entities.Payment)
        if payment.customer_id is None or payment.token_id is None:
            return None
        return payment, payment.customer_id, payment.token_id

    def verify_return(self, fields: Mapping[str, str]) -> GatewayNotification:
        """Verify the browser's return. The payment's data comes from Razorpay, not from the browser.

        A successful return is signed, a failed one is not. Both carry only ids, so the payment is read from
        Razorpay.
        """
        order_id, payment_id = self._returned_ids(fields)
        answer = self._client.order.payments(order_id)
        for payment in entities.parse_all(answer, entities.Payment):
            if payment.id == payment_id:
                return GatewayNotification(
                    f"return-{payment_id}-{payment.status}", "return", payment.attempt()
                )
        raise InvalidWebhookSignature("razorpay does not know this payment of the order")

    def verify_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayNotification:
        """Verify a webhook. Razorpay repeats an event with the same `x-razorpay-event-id`."""
        expected = hmac.new(self._webhook_secret, body, sha256).hexdigest()
        signature = headers.get("x-razorpay-signature", "")
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise InvalidWebhookSignature("the webhook is not signed with our secret")
        try:
            event = msgspec.json.decode(body, type=entities.Event)
        except (ValueError, msgspec.MsgspecError) as error:
            raise InvalidWebhookSignature(f"the webhook cannot be read: {error}") from None
        notification_id = headers.get("x-razorpay-event-id") or sha256(body).hexdigest()
        payment = event.payload.payment
        # Ignore events without an order, such as those of a payment link of the same account.
        about_order = payment is not None and payment.entity.order_id is not None
        attempt = payment.entity.attempt() if payment is not None and about_order else None
        return GatewayNotification(notification_id, event.event, attempt)

    def refund(self, request: GatewayRefundRequest) -> GatewayRefund:
        """Refund money, once per refund id. The id is the receipt and Razorpay's idempotency key."""
        payment_id = request.gateway_payment_id
        answer = self._client.payment.fetch_multiple_refund(payment_id, {"count": _PAGE_OF_PAYMENTS})
        for known in entities.parse_all(answer, entities.RefundEntity):
            if known.receipt == request.refund_id:
                return known.refund()
        made = self._client.payment.refund(
            payment_id,
            {"amount": request.amount_minor, "receipt": request.refund_id, "speed": "normal"},
            headers={"X-Refund-Idempotency": _idempotency_key(request.refund_id)},
        )
        return entities.parse(made, entities.RefundEntity).refund()

    def settlement_lines(self, first: date, last: date) -> Iterator[SettlementLine]:
        """Return the settled payments and refunds that were created on these days (UTC).

        Razorpay groups them by settlement day, some days after the payment, in Indian time.
        """
        until = min(last + SETTLES_WITHIN, self._clock().astimezone(UTC).date() + timedelta(days=1))
        for year, month in _months(first - timedelta(days=1), until):
            for item in self._settled_in(year, month):
                line = item.line()
                if line is not None and first <= line.at.date() <= last:
                    yield line

    def _create_order(self, request: OrderRequest) -> entities.Order:
        wanted: dict[str, Any] = {
            "amount": request.amount_minor,
            "currency": request.currency,
            "receipt": request.payment_id,
            "payment_capture": 1,
        }
        if request.mandate_minor is not None:
            wanted |= {
                "customer_id": self._customer(request.payer),
                "method": "card",
                "token": {"max_amount": request.mandate_minor, "frequency": "as_presented"},
            }
        return entities.parse(self._client.order.create(wanted), entities.Order)

    def _customer(self, payer: Payer) -> str:
        fields = {"name": payer.name, "email": payer.email, "contact": payer.phone}
        given = {name: value for name, value in fields.items() if value}
        answer = self._client.customer.create({**given, "fail_existing": "0"})
        return entities.parse(answer, entities.Customer).id

    def _payments(self, order_id: str) -> list[entities.Payment]:
        return entities.parse_all(self._client.order.payments(order_id), entities.Payment)

    def _capture(self, payment: entities.Payment) -> None:
        # Razorpay refuses if the payment was captured or refunded in the meantime. The caller reads it again.
        with suppress(GatewayRefused):
            # Always pass `data`: the client's default is one shared dict, which it modifies.
            self._client.payment.capture(payment.id, payment.amount, {"currency": payment.currency})

    def _returned_ids(self, fields: Mapping[str, str]) -> tuple[str, str]:
        """Return the order id and payment id of a return, after a check of its signature."""
        if _FAILED_RETURN in fields:
            try:
                metadata = msgspec.json.decode(fields[_FAILED_RETURN], type=dict[str, str])
                return metadata["order_id"], metadata["payment_id"]
            except (KeyError, ValueError, msgspec.MsgspecError):
                raise InvalidWebhookSignature("the failed return names no payment") from None
        try:
            signed = {name: fields[name] for name in _RETURN_FIELDS}
            self._client.utility.verify_payment_signature(signed)
        except KeyError:
            raise InvalidWebhookSignature("the return lacks a signed field") from None
        except (SignatureVerificationError, TypeError):
            raise InvalidWebhookSignature("the return is not signed by Razorpay") from None
        return signed["razorpay_order_id"], signed["razorpay_payment_id"]

    def _settled_in(self, year: int, month: int) -> Iterator[entities.SettledEntity]:
        skip = 0
        while True:
            query = {"year": year, "month": month, "count": _PAGE_OF_SETTLEMENTS, "skip": skip}
            items = entities.parse_all(self._client.settlement.report(query), entities.SettledEntity)
            if not items:
                return
            yield from items
            skip += len(items)


def _explain(body: dict[str, Any]) -> tuple[str, str]:
    error = body.get("error")
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("code") or ""), str(error.get("description") or "")


def _idempotency_key(refund_id: str) -> str:
    """Return the refund id, or a digest of it if Razorpay does not accept it as an idempotency key."""
    if _IDEMPOTENCY_KEY.fullmatch(refund_id):
        return refund_id
    return blake2b(refund_id.encode(), digest_size=16).hexdigest()


def _months(first: date, last: date) -> Iterator[tuple[int, int]]:
    month = first.replace(day=1)
    while month <= last:
        yield month.year, month.month
        month = (month + timedelta(days=32)).replace(day=1)
