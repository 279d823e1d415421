"""Refunds: what the money bought is taken first, then the gateway is asked until it answers.

Three things can be refunded: unspent credits, the fee of a plan or of a custom payment, and all the money of
an attempt that paid for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.credits.errors import RefundExceedsPurchase
from domain.credits.events import PurchaseRefunded
from domain.credits.organisation import Organisation
from domain.payments.completion import pro_until
from domain.payments.events import AttemptRefundRequested, PaymentRefundRequested, RefundRequested
from domain.payments.gateway import (
    GatewayRefund,
    GatewayRefundRequest,
    GatewayRefused,
    GatewayUnavailable,
    RefundStatus,
)
from domain.payments.payment import Payment
from domain.payments.ports import QuoteStore
from domain.payments.repository import PaymentReference, PaymentRepository, PaymentResult
from domain.pricing.plans import Plan
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.errors import InvalidInput
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Cost


class CreditRefund(msgspec.Struct, frozen=True):
    """Take back some unspent credits of the payment and refund their price; None: all unspent credits."""

    credits: int | None = None


class FeeRefund(msgspec.Struct, frozen=True):
    """Refund the fee, or a part of it: an amount without tax, to which its part of the tax is added.

    If nothing is left of a plan's fee, the subscription that it paid for ends.
    """

    amount_minor: int


class AttemptRefund(msgspec.Struct, frozen=True):
    """Refund all the money of an attempt that paid for nothing."""

    gateway_payment_id: str


RefundRequest = CreditRefund | FeeRefund | AttemptRefund


class PaymentRefunds:
    """Commands on refunds. Every method may raise StoreUnavailable."""

    def __init__(self, repository: PaymentRepository, quote_store: QuoteStore) -> None:
        self._repository = repository
        self._quote_store = quote_store

    def refund(
        self,
        organisation_id: str,
        payment_id: str,
        refund_request: RefundRequest,
        *,
        refund_id: str,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> PaymentResult:
        """Refund a payment, and take what the money bought.

        Credits and plan are taken at once. The gateway is asked until it answers. If it refuses, they are
        restored.

        Raises:
            PaymentNotFound, IdempotencyConflict.
            InvalidInput: the amount or the credits are below 1, or missing.
            PaymentNotRefundable: it is not paid, or took no money of this kind.
            RefundExceedsPurchase: fewer credits can be taken back, or none.
            RefundExceedsRefundableFee: less of the fee can be refunded, or nothing.
        """

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            payment = self._repository.payment(payment_id, organisation_id)
            changed, _ = self._request(payment, refund_request, refund_id, context)
            return changed, PaymentReference(payment_id, refund_id)

        requested_refund = self._repository.runner.run(decide, idempotency_key, PaymentReference)
        self.send(payment_id, context)
        return self._repository.result(
            payment_id, refund_id=requested_refund.value.refund_id, repeated=requested_refund.repeated
        )

    def preview(
        self, organisation_id: str, payment_id: str, refund_request: RefundRequest, context: CommandContext
    ) -> RefundRequested:
        """Return the refund that a request would make now; nothing is recorded.

        Raises:
            PaymentNotFound, InvalidInput, PaymentNotRefundable: as `refund`.
            RefundExceedsPurchase, RefundExceedsRefundableFee: as `refund`.
        """
        payment = self._repository.payment(payment_id, organisation_id)
        return self._request(payment, refund_request, "preview", context)[1]

    def send(self, payment_id: str, context: CommandContext) -> None:
        """Send every open refund to the gateway. A refund that it does not answer stays open.

        A lock lets one caller in at a time: a gateway that is asked twice at once may pay twice.
        """
        if self._repository.payment(payment_id).open_refunds:
            with self._quote_store.payment_lock(payment_id):
                self._send(self._repository.payment(payment_id), context)

    def _send(self, payment: Payment, context: CommandContext) -> None:
        for requested_refund in payment.open_refunds:
            try:
                answer = self._send_refund(payment, requested_refund)
            except GatewayUnavailable:
                return
            except GatewayRefused as refusal:
                self._refuse_refund(
                    requested_refund, str(refusal.details.get("code") or "REFUND_REFUSED"), context
                )
                continue
            if answer.status is RefundStatus.DONE:
                self._record_refund(requested_refund, answer, context)
            elif answer.status is RefundStatus.FAILED:
                self._refuse_refund(requested_refund, "REFUND_FAILED", context)

    def _request(
        self, payment: Payment, refund_request: RefundRequest, refund_id: str, context: CommandContext
    ) -> tuple[Sequence[Aggregate], RefundRequested]:
        """Let a payment and its organisation decide on a refund; return both, and the refund."""
        if isinstance(refund_request, AttemptRefund):
            requested_refund = payment.request_attempt_refund(
                refund_id, refund_request.gateway_payment_id, context
            )
            return [payment], requested_refund
        organisation = self._repository.ledger.organisation(payment.terms.organisation_id)
        if isinstance(refund_request, FeeRefund):
            return [payment, organisation], _request_fee_refund(
                payment, organisation, refund_request.amount_minor, refund_id, context
            )
        return [payment, organisation], self._request_credit_refund(
            payment, organisation, refund_request.credits, refund_id, context
        )

    def _request_credit_refund(
        self,
        payment: Payment,
        organisation: Organisation,
        credits_count: int | None,
        refund_id: str,
        context: CommandContext,
    ) -> PaymentRefundRequested:
        if credits_count is None and payment.purchase is None and payment.refundable_fee_minor:
            raise InvalidInput("amount_minor", "state the amount to refund: the payment bought no credits")
        purchase = payment.refundable_purchase()
        wanted = organisation.refundable(purchase) if credits_count is None else credits_count
        if credits_count is None and wanted == 0:
            raise RefundExceedsPurchase("all of the credits bought were spent, or are held", refundable=0)
        requested_refund = payment.request_refund(refund_id, wanted, context)
        organisation.refund_purchase(
            purchase,
            requested_refund.credits,
            payment_id=requested_refund.payment_id,
            refund_id=refund_id,
            cost=Cost(requested_refund.amount_minor, requested_refund.tax_minor),
            context=context,
        )
        return requested_refund

    def _send_refund(self, payment: Payment, requested_refund: RefundRequested) -> GatewayRefund:
        if requested_refund.total_minor == 0:  # credits that came with a plan cost nothing
            return GatewayRefund("", RefundStatus.DONE, 0)
        return self._repository.gateway(payment.terms.gateway).refund(
            GatewayRefundRequest(
                requested_refund.refund_id,
                payment.gateway_payment_id_of(requested_refund),
                requested_refund.total_minor,
                payment.currency_of(requested_refund),
            )
        )

    def _record_refund(
        self, requested_refund: RefundRequested, answer: GatewayRefund, context: CommandContext
    ) -> None:
        self._repository.change(
            requested_refund.payment_id,
            lambda payment: payment.record_refund(
                requested_refund.refund_id, answer.gateway_refund_id, context
            ),
        )

    def _refuse_refund(self, requested_refund: RefundRequested, reason: str, context: CommandContext) -> None:
        """Record that the gateway refused a refund, and restore what was taken for it."""

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            payment = self._repository.payment(requested_refund.payment_id)
            if not payment.record_refund_failure(requested_refund.refund_id, reason, context):
                return [], PaymentReference(requested_refund.payment_id)
            if isinstance(requested_refund, AttemptRefundRequested):
                return [payment], PaymentReference(requested_refund.payment_id)
            organisation = self._repository.ledger.organisation(requested_refund.organisation_id)
            if requested_refund.credits:
                assert payment.purchase is not None
                (taken,) = [
                    envelope.event
                    for envelope in self._repository.charge_history.refunds_of(
                        organisation.id, payment.purchase
                    )
                    if isinstance(envelope.event, PurchaseRefunded)
                    and envelope.event.refund_id == requested_refund.refund_id
                ]
                organisation.reverse_purchase_refund(taken, context)
            elif requested_refund.pro_until is not None:
                organisation.resume_pro(requested_refund.pro_until, context)
            return [payment, organisation], PaymentReference(requested_refund.payment_id)

        self._repository.runner.run(decide, None, PaymentReference)


def _request_fee_refund(
    payment: Payment, organisation: Organisation, amount_minor: int, refund_id: str, context: CommandContext
) -> PaymentRefundRequested:
    """Request a refund of the fee. If none of it is left, end the subscription that the payment started."""
    until = pro_until(payment)
    is_all = amount_minor == payment.refundable_fee_minor
    ends = until if is_all and until is not None and organisation.subscription.is_ending_at(until) else None
    requested_refund = payment.request_fee_refund(refund_id, amount_minor, context, pro_until=ends)
    if ends is not None:
        organisation.change_plan(Plan.PAY_AS_YOU_GO, None, context)
    return requested_refund
