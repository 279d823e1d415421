"""Entities of Razorpay's API and webhooks, as far as the ledger reads them, and their conversion to the port.

https://razorpay.com/docs/api/payments, /docs/api/refunds, /docs/api/settlements, /docs/webhooks.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from domain.payments.gateway import (
    Attempt,
    AttemptStatus,
    GatewayRefund,
    GatewayUnavailable,
    RefundStatus,
    SettlementKind,
    SettlementLine,
)

PAYER_GAVE_UP: Final = "payment_cancelled"
_REFUNDS: Final = {
    "pending": RefundStatus.PENDING,
    "processed": RefundStatus.DONE,
    "failed": RefundStatus.FAILED,
}

T = TypeVar("T")


class Order(msgspec.Struct, frozen=True):
    """An order. All amounts of Razorpay are in minor units.

    `customer_id` is set for an order that saves a card for later charges.
    """

    id: str
    amount: int
    currency: str
    status: str = ""
    customer_id: str | None = None


class Customer(msgspec.Struct, frozen=True):
    """The owner of saved cards."""

    id: str


class Payment(msgspec.Struct, frozen=True):
    """A payment. The ledger calls it an attempt."""

    id: str
    status: str
    amount: int
    currency: str
    order_id: str | None = None
    captured: bool | None = None
    amount_refunded: int | None = 0
    error_code: str | None = None
    error_reason: str | None = None
    created_at: int = 0
    customer_id: str | None = None
    token_id: str | None = None
    email: str | None = None
    contact: str | None = None

    @property
    def is_only_authorized(self) -> bool:
        """Whether the payment is authorised but not captured."""
        return self.status == "authorized"

    def attempt(self) -> Attempt:
        """Return the payment as an attempt."""
        return Attempt(
            gateway_payment_id=self.id,
            order_id=self.order_id or "",
            status=self._status(),
            amount_minor=self.amount,
            currency=self.currency,
            refunded_minor=self.amount_refunded or 0,
            reason=self.error_reason or self.error_code,
        )

    def _status(self) -> AttemptStatus:
        match self.status:
            case "captured":
                return AttemptStatus.CAPTURED
            case "refunded":
                # Razorpay refunds an authorised payment after some days if it is never captured.
                return AttemptStatus.FAILED if self.captured is False else AttemptStatus.CAPTURED
            case "failed" if self.error_reason == PAYER_GAVE_UP:
                return AttemptStatus.CANCELLED
            case "failed":
                return AttemptStatus.FAILED
            case _:
                return AttemptStatus.PENDING


class RefundEntity(msgspec.Struct, frozen=True):
    """A refund; `receipt` is our refund id."""

    id: str
    amount: int
    status: str = "pending"
    receipt: str | None = None

    def refund(self) -> GatewayRefund:
        """Return the refund as the port defines it."""
        return GatewayRefund(self.id, _REFUNDS.get(self.status, RefundStatus.PENDING), self.amount)


class SettledEntity(msgspec.Struct, frozen=True):
    """An item of the settlement reconciliation report."""

    entity_id: str
    type: str
    amount: int
    currency: str
    created_at: int
    payment_id: str | None = None
    order_id: str | None = None

    def line(self) -> SettlementLine | None:
        """Return the item as a settlement line; None if it is neither a payment nor a refund."""
        at = datetime.fromtimestamp(self.created_at, UTC)
        if self.type == "payment":
            return SettlementLine(
                SettlementKind.PAYMENT, self.entity_id, self.order_id, self.amount, self.currency, at
            )
        if self.type == "refund" and self.payment_id is not None:
            return SettlementLine(
                SettlementKind.REFUND,
                self.payment_id,
                self.order_id,
                self.amount,
                self.currency,
                at,
                gateway_refund_id=self.entity_id,
            )
        return None


class Collection(msgspec.Struct, frozen=True):
    """A page of entities."""

    items: list[Any] = []


def parse(answer: object, entity: type[T]) -> T:
    """Parse a response as an entity.

    Raises:
        GatewayUnavailable: the response is not such an entity, so the outcome is unknown.
    """
    try:
        return msgspec.convert(answer, entity)
    except msgspec.ValidationError as error:
        raise GatewayUnavailable(f"razorpay's response is not a valid {entity.__name__}: {error}") from None


def parse_all(answer: object, entity: type[T]) -> list[T]:
    """Parse a response as a collection of entities.

    Raises:
        GatewayUnavailable: the response is not a collection of such entities.
    """
    return [parse(item, entity) for item in parse(answer, Collection).items]


class _Entity(msgspec.Struct, frozen=True):
    entity: Payment


class _Payload(msgspec.Struct, frozen=True):
    payment: _Entity | None = None


class Event(msgspec.Struct, frozen=True):
    """A webhook's body."""

    event: str
    payload: _Payload = _Payload()
