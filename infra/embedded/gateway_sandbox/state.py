"""The sandbox's state: orders, payments, refunds, cards and pending webhooks, in a file or in memory."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Final

import msgspec

from infra.embedded.files import write_atomically

PENDING: Final = "created"
AUTHORIZED: Final = "authorized"
CAPTURED: Final = "captured"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

_ALPHABET: Final = string.ascii_letters + string.digits


class Order(msgspec.Struct):
    """An order. Amounts are in minor units, times in seconds since 1970."""

    id: str
    gateway: str
    receipt: str
    amount_minor: int
    currency: str
    created_at: int
    return_url: str = ""
    cancel_url: str = ""
    title: str = ""
    customer_id: str = ""
    mandate_minor: int = 0
    """Largest amount of a later charge to the card that pays the order. 0: the card is not saved."""


class Payment(msgspec.Struct):
    """A payment of an order. A pending payment is captured at `captures_at`, if set."""

    id: str
    order_id: str
    status: str
    amount_minor: int
    currency: str
    created_at: int
    reason: str | None = None
    captures_at: float | None = None
    was_captured: bool = False
    token_id: str = ""


class Card(msgspec.Struct):
    """A saved card. `answers` is the status of its next charges, or "" if the card is deleted."""

    token_id: str
    customer_id: str
    most_minor: int
    created_at: int
    answers: str = CAPTURED


class Refund(msgspec.Struct):
    """A refund. `key` is its idempotency key, `asked` the request body sent with the key."""

    id: str
    payment_id: str
    receipt: str | None
    amount_minor: int
    created_at: int
    key: str | None = None
    asked: str = ""


class Delivery(msgspec.Struct):
    """A webhook that the receiver has not acknowledged yet."""

    event_id: str
    body: str
    next_at: float
    tries: int = 0
    first_at: float = 0.0


class SandboxData(msgspec.Struct):
    """The whole state, as stored in the file."""

    orders: list[Order] = []
    payments: list[Payment] = []
    refunds: list[Refund] = []
    cards: list[Card] = []
    outbox: list[Delivery] = []


class RequestRejected(Exception):
    """The state does not allow the request. The message is for the caller of the gateway."""


class SandboxState:
    """The state. Every change is written to disk before it is published. Threads may share it.

    `on_payment` is called for every changed payment or refund with (event, payment, refund or None).
    """

    def __init__(self, path: Path | None, clock_s: Callable[[], float]) -> None:
        self._path = path
        self.clock_s = clock_s
        self._lock = RLock()
        self.contents = SandboxData()
        if path is not None and path.exists():
            self.contents = msgspec.json.decode(path.read_bytes(), type=SandboxData)
        self.on_payment: Callable[[str, Payment, Refund | None], None] = lambda event, payment, refund: None

    @contextmanager
    def transaction(self) -> Iterator[SandboxData]:
        """Context manager that yields the contents for a change and writes them at the end."""
        with self._lock:
            yield self.contents
            if self._path is not None:
                write_atomically(self._path, msgspec.json.encode(self.contents).decode())

    def add_order(
        self,
        gateway: str,
        prefix: str,
        receipt: str,
        amount_minor: int,
        currency: str,
        *,
        customer_id: str = "",
        mandate_minor: int = 0,
    ) -> Order:
        """Add an order. With `mandate_minor`, the card that pays it is saved for its customer."""
        with self.transaction() as contents:
            order = Order(
                new_id(prefix),
                gateway,
                receipt,
                amount_minor,
                currency,
                int(self.clock_s()),
                customer_id=customer_id,
                mandate_minor=mandate_minor,
            )
            contents.orders.append(order)
            return order

    def set_checkout(self, order: Order, *, return_url: str, cancel_url: str, title: str) -> None:
        """Store the return URLs of an order and the title of its checkout page."""
        with self.transaction():
            order.return_url, order.cancel_url, order.title = return_url, cancel_url, title

    def order(self, order_id: str) -> Order | None:
        """Return an order, or None."""
        return next((order for order in self.contents.orders if order.id == order_id), None)

    def payment(self, payment_id: str) -> Payment | None:
        """Return a payment, or None."""
        return next((payment for payment in self.contents.payments if payment.id == payment_id), None)

    def card(self, token_id: str) -> Card | None:
        """Return a saved card, or None."""
        return next((card for card in self.contents.cards if card.token_id == token_id), None)

    def set_card_outcome(self, card: Card, status: str) -> None:
        """Set the status of a card's next charges; "" deletes the card."""
        with self.transaction():
            card.answers = status

    def payments_of(self, order_id: str) -> list[Payment]:
        """Return the payments of an order, oldest first."""
        return [payment for payment in self.contents.payments if payment.order_id == order_id]

    def refunds_of(self, payment_id: str) -> list[Refund]:
        """Return the refunds of a payment, oldest first."""
        return [refund for refund in self.contents.refunds if refund.payment_id == payment_id]

    def refunded_minor(self, payment: Payment) -> int:
        """Return the refunded amount of a payment."""
        return sum(refund.amount_minor for refund in self.refunds_of(payment.id))

    def paid_minor(self, order: Order) -> int:
        """Return the captured amount of an order."""
        return sum(p.amount_minor for p in self.payments_of(order.id) if p.was_captured)

    def add_payment(
        self,
        order: Order,
        status: str,
        *,
        payment_id: str,
        amount_minor: int | None = None,
        reason: str | None = None,
        captures_in_s: float | None = None,
    ) -> Payment:
        """Add a payment to an order."""
        now_s = self.clock_s()
        with self.transaction() as contents:
            payment = Payment(
                payment_id,
                order.id,
                PENDING,
                order.amount_minor if amount_minor is None else amount_minor,
                order.currency,
                int(now_s),
                captures_at=None if captures_in_s is None else now_s + captures_in_s,
            )
            contents.payments.append(payment)
            if status != PENDING:
                self._set_status(payment, status, reason)
            return payment

    def change_status(self, payment: Payment, status: str, reason: str | None = None) -> None:
        """Change the status of a pending or authorised payment.

        Raises:
            RequestRejected: the payment has a final status.
        """
        with self.transaction():
            if payment.status not in {PENDING, AUTHORIZED}:
                raise RequestRejected(f"This payment is already {payment.status}")
            self._set_status(payment, status, reason)

    def capture_due(self) -> None:
        """Capture the pending payments whose capture time has come."""
        now_s = self.clock_s()
        for payment in list(self.contents.payments):
            if payment.captures_at is not None and payment.captures_at <= now_s:
                with self.transaction():
                    payment.captures_at = None
                    if payment.status == PENDING:
                        self._set_status(payment, CAPTURED, None)

    def add_refund(
        self,
        payment: Payment,
        amount_minor: int,
        *,
        prefix: str,
        receipt: str | None,
        key: str | None = None,
        asked: str = "",
    ) -> Refund:
        """Add a refund.

        Raises:
            RequestRejected: the payment is not captured, or the amount exceeds its rest.
        """
        with self.transaction() as contents:
            if not payment.was_captured:
                raise RequestRejected("The payment status should be captured for action to be taken")
            if amount_minor > payment.amount_minor - self.refunded_minor(payment):
                raise RequestRejected("The total refund amount is greater than the refund payment amount")
            refund = Refund(
                new_id(prefix), payment.id, receipt, amount_minor, int(self.clock_s()), key, asked
            )
            contents.refunds.append(refund)
            self.on_payment("refund.processed", payment, refund)
            return refund

    def _set_status(self, payment: Payment, status: str, reason: str | None) -> None:
        payment.status = status
        payment.reason = reason
        payment.captures_at = None
        if status == CAPTURED:
            payment.was_captured = True
            self._save_card(payment)
        self.on_payment(f"payment.{status}", payment, None)

    def _save_card(self, payment: Payment) -> None:
        order = self.order(payment.order_id)
        if order is not None and order.mandate_minor:
            card = Card(new_id("token_"), order.customer_id, order.mandate_minor, int(self.clock_s()))
            payment.token_id = card.token_id
            self.contents.cards.append(card)


def new_id(prefix: str) -> str:
    """Return an id in the gateways' format: a prefix such as `pay_` and fourteen letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(14))
