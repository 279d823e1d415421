"""What the ledger needs of a payment gateway: the port, and what crosses it.

A gateway knows an *order* (what is to be paid, once) and *attempts* at paying it. More than one attempt of an
order may take money: an adapter reports every one of them, and the ledger decides which counts.

Amounts are minor units of the currency, tax included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from domain.shared.errors import LedgerError


class GatewayError(LedgerError):
    """The gateway did not do what was asked."""


class GatewayUnavailable(GatewayError):
    """The gateway does not answer, or answers that it is down: ask again later.

    Whatever was asked may or may not have happened.
    """


class GatewayRefused(GatewayError):
    """The gateway refused what was asked, and would again; `details["code"]` is its own word for why."""


class InvalidWebhookSignature(GatewayError):
    """What claims to come from the gateway is not signed by it, or cannot be read: nothing of it counts."""


class AttemptStatus(StrEnum):
    """Where an attempt at paying stands."""

    PENDING = "pending"
    CAPTURED = "captured"
    """The money is taken."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The payer gave up; nothing was charged."""


class Attempt(msgspec.Struct, frozen=True):
    """One attempt at paying an order. `reason` is the gateway's own code where it failed or was given up."""

    gateway_payment_id: str
    order_id: str
    status: AttemptStatus
    amount_minor: int
    currency: str
    refunded_minor: int = 0
    """0 as well where the gateway does not tell."""
    reason: str | None = None


class Payer(msgspec.Struct, frozen=True):
    """Who pays, as far as is known, to fill in the gateway's page with. Personal: never in an event."""

    name: str = ""
    email: str = ""
    phone: str = ""


class OrderRequest(msgspec.Struct, frozen=True):
    """What is to be paid. `payment_id` is ours (at most 40 characters): it makes the order once.

    With `mandate_minor` the payer lets their card be charged again without them, for at most so much a time.
    """

    payment_id: str
    amount_minor: int
    currency: str
    description: str
    return_url: str
    """Where the gateway's page sends the browser, with what `PaymentGateway.verify_return` takes."""
    cancel_url: str
    payer: Payer = Payer()
    mandate_minor: int | None = None


class Checkout(msgspec.Struct, frozen=True):
    """How a browser gets to the gateway's page: a form to send, by POST, or with `GET` a plain link.

    A link has no fields: all it says is in its address, whose query a browser would drop from a form.
    """

    url: str
    method: str = "GET"
    fields: Mapping[str, str] = {}

    @property
    def is_link(self) -> bool:
        """Whether the address alone leads there."""
        return self.method == "GET"


class OpenedOrder(msgspec.Struct, frozen=True):
    """An order the gateway has opened."""

    order_id: str
    checkout: Checkout | None
    """None where the gateway shows the way once, when the order is opened, and has shown it."""


class GatewayNotification(msgspec.Struct, frozen=True):
    """What the gateway told, and signed. `attempt` is None where it is not about an attempt at paying."""

    notification_id: str
    """Unique per gateway; a replay has the same."""
    kind: str
    attempt: Attempt | None


class ChargeRequest(msgspec.Struct, frozen=True):
    """An order to be paid by the card that paid before, as `mandate`: the gateway's id of that payment."""

    order_id: str
    amount_minor: int
    currency: str
    description: str
    mandate: str


class GatewayRefundRequest(msgspec.Struct, frozen=True):
    """Money to give back. `refund_id` is ours: the same one is never paid back twice."""

    refund_id: str
    gateway_payment_id: str
    amount_minor: int
    currency: str


class RefundStatus(StrEnum):
    """Where a refund stands."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class GatewayRefund(msgspec.Struct, frozen=True):
    """A refund as the gateway knows it."""

    gateway_refund_id: str
    status: RefundStatus
    amount_minor: int


class SettlementKind(StrEnum):
    """What a line of a settlement list is about."""

    PAYMENT = "payment"
    REFUND = "refund"


class SettlementLine(msgspec.Struct, frozen=True):
    """A line of the gateway's own account of the money: a payment it took, or a refund it gave."""

    kind: SettlementKind
    gateway_payment_id: str
    order_id: str | None
    amount_minor: int
    currency: str
    at: datetime
    gateway_refund_id: str | None = None


class PaymentGateway(Protocol):
    """A payment gateway. Methods may take seconds, and raise GatewayUnavailable where they got no answer."""

    @property
    def name(self) -> str:
        """Its name in the ledger, such as `razorpay`: stored with every payment, for ever."""

    @property
    def currencies(self) -> frozenset[str]:
        """ISO 4217 codes it takes."""

    @property
    def supports_recurring_charges(self) -> bool:
        """Whether it can charge a payer's card again without them."""

    @property
    def settlement_delay_max(self) -> timedelta:
        """How long after it was taken money may take to show in `settled`."""

    def open_order(self, request: OrderRequest) -> OpenedOrder:
        """Open an order; asked again for the same payment, return the order that is there.

        Raises:
            GatewayRefused: the order could not be created.
        """

    def checkout(self, order_id: str, request: OrderRequest) -> Checkout:
        """Return the way to the gateway's page of an order that is open.

        Raises:
            GatewayRefused: it shows the way once, when the order is opened.
        """

    def attempts(self, order_id: str) -> Sequence[Attempt]:
        """Return every attempt at paying an order, oldest first; empty where nobody has tried.

        Raises:
            GatewayRefused: the gateway knows no such order.
        """

    def charge(self, request: ChargeRequest) -> Attempt:
        """Charge a card again; where the order has an attempt already, return that.

        Raises:
            GatewayRefused: it will not: the card was not kept, or is no longer.
        """

    def forget_card(self, mandate: str) -> None:
        """Never charge the card of a payment again; one that is forgotten, or was not kept, stays so.

        Raises:
            GatewayRefused: it will not.
        """

    def verify_return(self, fields: Mapping[str, str]) -> GatewayNotification:
        """Return what the browser brought back from the gateway's page, its signature checked.

        It may be about any order: whoever asks checks that it is about the right one. Where the payer
        cancelled, some gateways bring nothing back, and there is nothing to read.

        Raises:
            InvalidWebhookSignature: it is not signed by the gateway.
        """

    def verify_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayNotification:
        """Return what a webhook tells, the signature checked on the raw bytes; header names are lower case.

        Raises:
            InvalidWebhookSignature: it is not signed by the gateway, or is no notice.
        """

    def refund(self, request: GatewayRefundRequest) -> GatewayRefund:
        """Give money back; asked again with the same refund id, return the refund that is there.

        Raises:
            GatewayRefused: it will not.
        """

    def settlement_lines(self, first: date, last: date) -> Iterable[SettlementLine]:
        """Return the gateway's list of the money it moved, from a day to another, both included (UTC).

        Raises:
            GatewayRefused: it keeps no such list.
        """

    def close(self) -> None:
        """Give connections back."""
