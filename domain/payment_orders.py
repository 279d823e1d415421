"""Orders at gateways: opened once for a payment, and paid by its payer, or by a card that paid before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from domain.facts import Request
from domain.gateway import Attempt, ChargeRequest, GatewayRefused, OrderRequest
from domain.payment import UNPAID, Payment
from domain.payment_book import Desk, PaymentBook, PaymentStanding, Ways
from domain.payment_facts import PaymentKind, PaymentStatus


class PaymentOrders:
    """Has gateways open orders and charge cards. Methods may raise StoreUnavailable, GatewayUnavailable."""

    def __init__(self, book: PaymentBook, desk: Desk, ways: Callable[[str], Ways]) -> None:
        self._book = book
        self._desk = desk
        self._ways = ways

    def open(self, payment_id: str, request: Request, *, repeated: bool = False) -> PaymentStanding:
        """Have the gateway open the order, unless it has, and return the way to its page.

        There is none where a card is charged: nobody is to pay there. An order that the gateway will not open
        is a payment that has failed.

        Raises:
            GatewayUnknown.
            GatewayRefused: it shows the way once, and has shown it.
        """
        payment = self._book.payment(payment_id)
        if payment.status in UNPAID and payment.order_id is None:
            self._keep_remark(payment)
            with self._desk.turn(payment_id):
                return self._ask(self._book.payment(payment_id), request, repeated=repeated)
        return self._ask(payment, request, repeated=repeated)

    def charge(self, payment_id: str, request: Request) -> Sequence[Attempt]:
        """Have the gateway charge the card of the payment that this one names; return what it says of it.

        Where it will not, the payment has failed. Asked again, it is charged once: one at a time asks, and
        what the gateway knows of the order comes first.
        """
        with self._desk.turn(payment_id):
            payment = self._book.payment(payment_id)
            terms = payment.terms
            if payment.status is not PaymentStatus.PENDING or terms.charged_to is None:
                return ()
            assert payment.order_id is not None
            mandate = self._book.payment(terms.charged_to).gateway_payment_id
            assert mandate is not None
            asked = ChargeRequest(
                payment.order_id, terms.total_minor, terms.currency.value, _described(payment), mandate
            )
            try:
                return [self._book.gateway(terms.gateway).charge(asked)]
            except GatewayRefused as refusal:
                self._fail(payment_id, refusal, "CHARGE_REFUSED", request)
                return ()

    def _keep_remark(self, payment: Payment) -> None:
        """Keep what a quote says its payment is for: before the order, whoever goes on with the payment."""
        terms = payment.terms
        if terms.kind is PaymentKind.CUSTOM and terms.quote_id is not None:
            quoted = self._desk.quote(terms.organisation_id, terms.quote_id)
            if quoted is not None and quoted.remark is not None:
                self._desk.keep_remark(terms.organisation_id, terms.payment_id, quoted.remark)

    def _ask(self, payment: Payment, request: Request, *, repeated: bool) -> PaymentStanding:
        terms = payment.terms
        payment_id, is_charged = terms.payment_id, terms.charged_to is not None
        if payment.status not in UNPAID or (is_charged and payment.order_id is not None):
            return self._book.standing(payment_id, repeated=repeated)
        gateway, ways = self._book.gateway(terms.gateway), self._ways(payment_id)
        order = OrderRequest(
            payment_id,
            terms.total_minor,
            terms.currency.value,
            _described(payment),
            ways.return_url,
            ways.cancel_url,
            self._desk.payer(terms.organisation_id),
            None if terms.top_up is None else terms.total_minor,
        )
        if payment.order_id is not None:
            return self._book.standing(
                payment_id, checkout=gateway.checkout(payment.order_id, order), repeated=repeated
            )
        try:
            opened = gateway.open_order(order)
        except GatewayRefused as refusal:
            return self._fail(payment_id, refusal, "ORDER_REFUSED", request)
        self._book.change(payment_id, lambda each: each.order(opened.order_id, request))
        checkout = None if is_charged else opened.checkout
        return self._book.standing(payment_id, checkout=checkout, repeated=repeated)

    def _fail(
        self, payment_id: str, refusal: GatewayRefused, otherwise: str, request: Request
    ) -> PaymentStanding:
        code = str(refusal.details.get("code") or otherwise)
        return self._book.change(payment_id, lambda each: each.fail(code, request))


_DESCRIPTIONS: Final = {
    PaymentKind.CREDITS: "{credits:,} credits",
    PaymentKind.PRO: "Pro subscription, 365 days",
    PaymentKind.CUSTOM: "Custom payment",
}


def _described(payment: Payment) -> str:
    return _DESCRIPTIONS[payment.terms.kind].format(credits=payment.terms.credits)
