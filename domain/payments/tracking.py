"""What a gateway reports about payments: webhooks, browser returns, and the answers to our questions.

A gateway is called between two appends, never inside one. After a crash `follow_up` continues from what the
log says: each call to a gateway can be repeated (`domain.payments.gateway`), and so can each of its reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from domain.credits.errors import PurchaseAlreadyRecorded
from domain.payments.auto_top_up_purchases import AutoTopUpPurchases
from domain.payments.checkout import PaymentOrders
from domain.payments.completion import Completion, complete
from domain.payments.errors import PaymentNotFound
from domain.payments.events import PaymentOrdered
from domain.payments.gateway import Attempt, AttemptStatus, GatewayRefused, InvalidWebhookSignature
from domain.payments.payment import Payment
from domain.payments.payment_state import PAID_STATUSES, UNPAID_STATUSES
from domain.payments.refunds import PaymentRefunds
from domain.payments.repository import PaymentReference, PaymentRepository, PaymentResult
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.stream_keys import order_key

NEVER_PAID: Final = "NEVER_PAID"
"""The reason of a payment that is abandoned because nobody paid it in time."""
CHECKOUT_TIMEOUT: Final = timedelta(days=1)
CARD_CHARGE_TIMEOUT: Final = timedelta(days=2)
"""For a card that is charged again: banks first inform its owner, and take the money up to 36 hours later."""


class PaymentTracking:
    """Keeps payments equal to what gateways report. Every method may raise StoreUnavailable."""

    def __init__(
        self,
        repository: PaymentRepository,
        orders: PaymentOrders,
        refunds: PaymentRefunds,
        top_ups: AutoTopUpPurchases,
    ) -> None:
        self._repository = repository
        self._orders = orders
        self._refunds = refunds
        self._top_ups = top_ups

    def handle_webhook(
        self, gateway: str, body: bytes, headers: Mapping[str, str], context: CommandContext
    ) -> None:
        """Handle a webhook: raw bytes, header names in lower case.

        A webhook about an unknown order is ignored: the order belongs to another user of the same gateway
        account. Our own orders are in the log before a payer can pay them.

        Raises:
            GatewayNotFound: no such gateway.
            InvalidWebhookSignature: it is not signed by the gateway, or it is not readable.
        """
        notification = self._repository.gateway(gateway).verify_webhook(body, headers)
        if notification.attempt is not None:
            with suppress(PaymentNotFound):
                self.record_attempt(gateway, notification.attempt, context)

    def handle_return(
        self, payment_id: str, fields: Mapping[str, str], context: CommandContext
    ) -> PaymentResult:
        """Handle what the browser brought back from the gateway's page.

        If it is not signed, or is about another order, the gateway is asked instead.

        Raises:
            PaymentNotFound, GatewayNotFound, GatewayUnavailable.
        """
        payment = self._repository.payment(payment_id)
        try:
            notification = self._repository.gateway(payment.terms.gateway).verify_return(fields)
        except InvalidWebhookSignature:
            return self.recheck(payment_id, context=context)
        if notification.attempt is None or notification.attempt.order_id != payment.order_id:
            return self.recheck(payment_id, context=context)
        return self.record_attempt(payment.terms.gateway, notification.attempt, context)

    def record_attempt(self, gateway: str, attempt: Attempt, context: CommandContext) -> PaymentResult:
        """Record what a gateway reports about an attempt: any number of times, in any order.

        If the attempt pays for the order, the payment is completed and its credits are added, in one append.

        Raises:
            PaymentNotFound: no payment has this order.
        """
        order = self._repository.store.find_by_dedupe_key(order_key(gateway, attempt.order_id))
        if order is None:
            raise PaymentNotFound(order_id=attempt.order_id)
        assert isinstance(order.event, PaymentOrdered)
        payment_id = order.event.payment_id
        try:
            return self._record_attempt(payment_id, attempt, context, recorded_before=False)
        except PurchaseAlreadyRecorded:
            return self._record_attempt(payment_id, attempt, context, recorded_before=True)

    def recheck(
        self, payment_id: str, *, organisation_id: str | None = None, context: CommandContext
    ) -> PaymentResult:
        """Ask the gateway about a payment, and record its attempts.

        If the payment has no order yet, open it. If it is to be paid with the card of an earlier payment, and
        has no attempt yet, charge the card.

        Raises:
            PaymentNotFound, GatewayNotFound, GatewayUnavailable.
        """
        payment = self._repository.payment(payment_id, organisation_id)
        if payment.order_id is None:
            result = self._orders.open(payment_id, context)
            if payment.terms.card_payment_id is None or result.payment.order_id is None:
                return result
            payment = result.payment
        assert payment.order_id is not None
        try:
            attempts = self._repository.gateway(payment.terms.gateway).attempts(payment.order_id)
        except GatewayRefused:
            attempts = ()
        if not attempts and payment.terms.card_payment_id is not None:
            attempts = self._orders.charge(payment_id, context)
        for attempt in _decisive_attempts(attempts):
            self.record_attempt(payment.terms.gateway, attempt, context)
        return self._repository.result(payment_id)

    def follow_up(self, payment_id: str, *, context: CommandContext) -> PaymentResult:
        """Do everything that a payment still needs: open its order, ask the gateway, send its refunds.

        A payment that is not paid in time is abandoned. If its money comes later, it is completed.

        Raises:
            PaymentNotFound, GatewayNotFound, GatewayUnavailable.
        """
        payment = self._repository.payment(payment_id)
        if payment.status not in PAID_STATUSES:
            self.recheck(payment_id, context=context)
            timeout = CHECKOUT_TIMEOUT if payment.terms.card_payment_id is None else CARD_CHARGE_TIMEOUT
            if context.at - payment.terms.recorded_at >= timeout:
                self._repository.change(payment_id, lambda each: _abandon_if_unpaid(each, context))
        self._refunds.send(payment_id, context)
        return self._repository.result(payment_id)

    def _record_attempt(
        self, payment_id: str, attempt: Attempt, context: CommandContext, *, recorded_before: bool
    ) -> PaymentResult:
        completion = Completion([])

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            nonlocal completion
            payment = self._repository.payment(payment_id)
            if payment.record_attempt(attempt, context):
                completion = complete(
                    self._repository.ledger, payment, attempt, context, recorded_before=recorded_before
                )
            else:
                completion = Completion([payment])
            return completion.changed, PaymentReference(payment_id)

        self._repository.runner.run(decide, None, PaymentReference, on_duplicate_key=PurchaseAlreadyRecorded)
        if completion.replaced_card_payment_id is not None:
            self._top_ups.forget_card(completion.replaced_card_payment_id)
        return self._repository.result(payment_id)


def _decisive_attempts(attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    """Return the attempts that decide about an order: all that took money, or else the latest one."""
    captured = [attempt for attempt in attempts if attempt.status is AttemptStatus.CAPTURED]
    return captured or attempts[-1:]


def _abandon_if_unpaid(payment: Payment, context: CommandContext) -> None:
    if payment.status in UNPAID_STATUSES:
        payment.abandon(NEVER_PAID, context)
