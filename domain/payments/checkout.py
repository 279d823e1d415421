"""Orders at gateways: each payment opens one. The payer pays it, or the card of an earlier payment does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from domain.payments.events import PaymentKind, PaymentStatus
from domain.payments.gateway import Attempt, ChargeRequest, GatewayRefused, OrderRequest
from domain.payments.payment import Payment
from domain.payments.payment_state import UNPAID_STATUSES
from domain.payments.ports import QuoteStore, ReturnUrls
from domain.payments.repository import PaymentRepository, PaymentResult
from domain.shared.command_context import CommandContext


class PaymentOrders:
    """Opens orders and charges cards. Methods may raise StoreUnavailable, GatewayUnavailable."""

    def __init__(
        self, repository: PaymentRepository, quote_store: QuoteStore, return_urls: Callable[[str], ReturnUrls]
    ) -> None:
        self._repository = repository
        self._quote_store = quote_store
        self._return_urls = return_urls

    def open(self, payment_id: str, context: CommandContext, *, repeated: bool = False) -> PaymentResult:
        """Open the order if it is not open, and return the checkout: the way to the gateway's page.

        There is no checkout if a card is charged. If the gateway refuses to open the order, the payment has
        failed.

        Raises:
            GatewayNotFound.
            GatewayRefused: this gateway gives the checkout only once, and has given it.
        """
        payment = self._repository.payment(payment_id)
        if payment.status in UNPAID_STATUSES and payment.order_id is None:
            self._keep_remark(payment)
            with self._quote_store.payment_lock(payment_id):
                return self._open_at_gateway(self._repository.payment(payment_id), context, repeated=repeated)
        return self._open_at_gateway(payment, context, repeated=repeated)

    def charge(self, payment_id: str, context: CommandContext) -> Sequence[Attempt]:
        """Charge the card of the payment `card_payment_id`; return the attempt.

        If the gateway refuses, the payment has failed. The card is charged once, even if this is called
        again: a lock lets one caller in at a time, and the gateway returns the attempt that the order has
        already.
        """
        with self._quote_store.payment_lock(payment_id):
            payment = self._repository.payment(payment_id)
            terms = payment.terms
            if payment.status is not PaymentStatus.PENDING or terms.card_payment_id is None:
                return ()
            assert payment.order_id is not None
            mandate = self._repository.payment(terms.card_payment_id).gateway_payment_id
            assert mandate is not None
            asked = ChargeRequest(
                payment.order_id, terms.total_minor, terms.currency.value, _description(payment), mandate
            )
            try:
                return [self._repository.gateway(terms.gateway).charge(asked)]
            except GatewayRefused as refusal:
                self._fail(payment_id, refusal, "CHARGE_REFUSED", context)
                return ()

    def _keep_remark(self, payment: Payment) -> None:
        """Copy the remark of the quote to the payment: before its order, so that a crash cannot lose it."""
        terms = payment.terms
        if terms.kind is PaymentKind.CUSTOM and terms.quote_id is not None:
            quoted = self._quote_store.quote(terms.organisation_id, terms.quote_id)
            if quoted is not None and quoted.remark is not None:
                self._quote_store.save_remark(terms.organisation_id, terms.payment_id, quoted.remark)

    def _open_at_gateway(self, payment: Payment, context: CommandContext, *, repeated: bool) -> PaymentResult:
        terms = payment.terms
        payment_id, is_charged = terms.payment_id, terms.card_payment_id is not None
        if payment.status not in UNPAID_STATUSES or (is_charged and payment.order_id is not None):
            return self._repository.result(payment_id, repeated=repeated)
        gateway, return_urls = self._repository.gateway(terms.gateway), self._return_urls(payment_id)
        order = OrderRequest(
            payment_id,
            terms.total_minor,
            terms.currency.value,
            _description(payment),
            return_urls.return_url,
            return_urls.cancel_url,
            self._quote_store.payer(terms.organisation_id),
            None if terms.top_up is None else terms.total_minor,
        )
        if payment.order_id is not None:
            return self._repository.result(
                payment_id, checkout=gateway.checkout(payment.order_id, order), repeated=repeated
            )
        try:
            opened = gateway.open_order(order)
        except GatewayRefused as refusal:
            return self._fail(payment_id, refusal, "ORDER_REFUSED", context)
        self._repository.change(payment_id, lambda each: each.record_order(opened.order_id, context))
        checkout = None if is_charged else opened.checkout
        return self._repository.result(payment_id, checkout=checkout, repeated=repeated)

    def _fail(
        self, payment_id: str, refusal: GatewayRefused, otherwise: str, context: CommandContext
    ) -> PaymentResult:
        code = str(refusal.details.get("code") or otherwise)
        return self._repository.change(payment_id, lambda each: each.fail(code, context))


_DESCRIPTIONS: Final = {
    PaymentKind.CREDITS: "{credits:,} credits",
    PaymentKind.PRO: "Pro subscription, 365 days",
    PaymentKind.CUSTOM: "Custom payment",
}


def _description(payment: Payment) -> str:
    return _DESCRIPTIONS[payment.terms.kind].format(credits=payment.terms.credits)
