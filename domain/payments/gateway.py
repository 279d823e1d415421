"""The port of payment gateways, and the values that cross it.

A gateway knows *orders*, each to be paid once, and *attempts* to pay them. More than one attempt of an order
may take money: an adapter reports all of them, and the ledger decides which one pays.

Amounts are in minor units of the currency, tax included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from domain.shared.errors import LedgerError

ID_LENGTH_MAX: Final = 40
"""The longest payment or refund id of ours that every gateway takes."""


def id_for_gateway(prefix: str, unique: str) -> str:
    """Return an id of a payment or refund that is short enough for every gateway."""
    return f"{prefix}-{unique}"[:ID_LENGTH_MAX]


class GatewayError(LedgerError):
    """The gateway did not do what was requested."""


class GatewayUnavailable(GatewayError):
    """The gateway does not answer, or answers that it is down: try again later.

    The request may or may not have taken effect.
    """


class GatewayRefused(GatewayError):
    """The gateway refused the request. Another try would be refused too.

    `details["code"]` is the gateway's code of the reason.
    """


class InvalidWebhookSignature(GatewayError):
    """The webhook is not signed by the gateway, or cannot be decoded. It is ignored."""


class AttemptStatus(StrEnum):
    """The state of an attempt."""

    PENDING = "pending"
    CAPTURED = "captured"
    """The money was taken."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The payer cancelled; no money was taken."""


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to pay an order. `reason` is the gateway's own code if it failed or was cancelled."""

    gateway_payment_id: str
    order_id: str
    status: AttemptStatus
    amount_minor: int
    currency: str
    refunded_minor: int = 0
    """0 also if the gateway does not report it."""
    reason: str | None = None


class Payer(msgspec.Struct, frozen=True):
    """What is known of the payer, to fill in the gateway's page. Personal data: never in an event."""

    name: str = ""
    email: str = ""
    phone: str = ""


class OrderRequest(msgspec.Struct, frozen=True):
    """What is to be paid. `payment_id` is ours, at most `ID_LENGTH_MAX` characters: it opens one order only.

    With `mandate_minor` the payer allows later charges of their card, each of at most this amount.
    """

    payment_id: str
    amount_minor: int
    currency: str
    description: str
    return_url: str
    """Where the gateway's page sends the browser, with fields for `PaymentGateway.verify_return`."""
    cancel_url: str
    payer: Payer = Payer()
    mandate_minor: int | None = None


class Checkout(msgspec.Struct, frozen=True):
    """How a browser gets to the gateway's page: it sends a form by POST, or with `GET` follows a link.

    A link has no fields: everything is in its URL. A form with method GET would drop the URL's query.
    """

    url: str
    method: str = "GET"
    fields: Mapping[str, str] = {}

    @property
    def is_link(self) -> bool:
        """Whether the URL is a plain link."""
        return self.method == "GET"


class OpenedOrder(msgspec.Struct, frozen=True):
    """An order that the gateway has opened."""

    order_id: str
    checkout: Checkout | None
    """None if the gateway gives the checkout only once, when it opens the order, and has given it."""


class GatewayNotification(msgspec.Struct, frozen=True):
    """A report that the gateway has signed. `attempt` is None if it is not about an attempt."""

    notification_id: str
    """Unique per gateway; a repeated notification has the same id."""
    kind: str
    attempt: Attempt | None


class ChargeRequest(msgspec.Struct, frozen=True):
    """Pay an order with a card that paid before. `mandate` is the gateway's id of that earlier payment."""

    order_id: str
    amount_minor: int
    currency: str
    description: str
    mandate: str


class GatewayRefundRequest(msgspec.Struct, frozen=True):
    """Money to give back. `refund_id` is ours: a gateway never pays the same one twice."""

    refund_id: str
    gateway_payment_id: str
    amount_minor: int
    currency: str


class RefundStatus(StrEnum):
    """The state of a refund."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class GatewayRefund(msgspec.Struct, frozen=True):
    """A refund as the gateway reports it."""

    gateway_refund_id: str
    status: RefundStatus
    amount_minor: int


class SettlementKind(StrEnum):
    """What a settlement line is about."""

    PAYMENT = "payment"
    REFUND = "refund"


class SettlementLine(msgspec.Struct, frozen=True):
    """A line of the gateway's settlement list: a payment that it took, or a refund that it gave."""

    kind: SettlementKind
    gateway_payment_id: str
    order_id: str | None
    amount_minor: int
    currency: str
    at: datetime
    gateway_refund_id: str | None = None


class PaymentGateway(Protocol):
    """A payment gateway.

    Methods call the network and can take seconds. They raise GatewayUnavailable if they get no answer.
    """

    @property
    def name(self) -> str:
        """Its name in the ledger, such as `razorpay`. It is stored with every payment: it never changes."""

    @property
    def currencies(self) -> frozenset[str]:
        """ISO 4217 codes it takes."""

    @property
    def supports_recurring_charges(self) -> bool:
        """Whether it can charge a card again without the payer."""

    @property
    def settlement_delay_max(self) -> timedelta:
        """The longest time from a payment until it is in `settlement_lines`."""

    def open_order(self, request: OrderRequest) -> OpenedOrder:
        """Open an order. For a payment that has an order already, return that one.

        Raises:
            GatewayRefused: the order could not be created.
        """

    def checkout(self, order_id: str, request: OrderRequest) -> Checkout:
        """Return the checkout of an open order.

        Raises:
            GatewayRefused: the gateway gives the checkout only once, when it opens the order.
        """

    def attempts(self, order_id: str) -> Sequence[Attempt]:
        """Return all attempts to pay an order, oldest first.

        Raises:
            GatewayRefused: the gateway knows no such order.
        """

    def charge(self, request: ChargeRequest) -> Attempt:
        """Charge a card again. If the order has an attempt already, return that one.

        Raises:
            GatewayRefused: for example because the card was not kept, or was forgotten.
        """

    def forget_card(self, mandate: str) -> None:
        """Forget the card of a payment, so that it can never be charged again. A repeat changes nothing.

        Raises:
            GatewayRefused: the gateway keeps the card.
        """

    def verify_return(self, fields: Mapping[str, str]) -> GatewayNotification:
        """Check the signature of what the browser brought back from the gateway's page, and return it.

        It may be about any order: the caller checks that it is the right one. If the payer cancelled, some
        gateways send no fields.

        Raises:
            InvalidWebhookSignature: the gateway has not signed it.
        """

    def verify_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayNotification:
        """Check the signature of a webhook's raw bytes, and return its report. Header names are lower case.

        Raises:
            InvalidWebhookSignature: the gateway has not signed it, or it cannot be read.
        """

    def refund(self, request: GatewayRefundRequest) -> GatewayRefund:
        """Give money back. For a refund id that is known already, return that refund.

        Raises:
            GatewayRefused: the gateway does not give it back.
        """

    def settlement_lines(self, first: date, last: date) -> Iterable[SettlementLine]:
        """Return the gateway's list of the money that it moved, from `first` to `last`, both included (UTC).

        Raises:
            GatewayRefused: the gateway has no such list.
        """

    def close(self) -> None:
        """Close the connections."""
