"""Refunds of purchases: credits are taken first; then the gateway is asked until it gives the money back."""

from __future__ import annotations

from collections.abc import Sequence

from domain.aggregate import Aggregate
from domain.errors import RefundExceedsPurchase
from domain.facts import PurchaseRefunded, Request
from domain.gateway import GatewayRefused, GatewayUnavailable, Refund, RefundRequest, RefundStatus
from domain.money import Cost
from domain.organisation import Organisation
from domain.payment import Payment
from domain.payment_book import Named, PaymentBook, PaymentStanding
from domain.payment_facts import PaymentRefundRequested
from domain.ports import Once


class PaymentRefunds:
    """Commands on refunds. Every method may raise StoreUnavailable."""

    def __init__(self, book: PaymentBook) -> None:
        self._book = book

    def refund(
        self,
        organisation_id: str,
        payment_id: str,
        credits_count: int | None,
        *,
        refund_id: str,
        request: Request,
        once: Once | None = None,
    ) -> PaymentStanding:
        """Take unspent credits of a purchase back, all unless a number is given, and give their money back.

        The credits are gone at once. The gateway is asked until it answers; if it refuses, they are back.

        Raises:
            PaymentUnknown, InvalidInput, IdempotencyConflict.
            PaymentNotRefundable: it is not paid, or bought no credits.
            RefundExceedsPurchase: fewer can be taken back, or none.
        """

        def decide() -> tuple[Sequence[Aggregate], Named]:
            payment = self._book.payment(payment_id, organisation_id)
            organisation, _ = self._ask(payment, credits_count, refund_id, request)
            return [payment, organisation], Named(payment_id, refund_id)

        asked = self._book.recording.record(decide, once, Named)
        self.send(payment_id, request)
        return self._book.standing(payment_id, refund_id=asked.recorded.refund_id, repeated=asked.repeated)

    def preview(
        self, organisation_id: str, payment_id: str, credits_count: int | None, request: Request
    ) -> PaymentRefundRequested:
        """Return what a refund would take and give back now; nothing is recorded.

        Raises:
            PaymentUnknown, InvalidInput, PaymentNotRefundable, RefundExceedsPurchase.
        """
        payment = self._book.payment(payment_id, organisation_id)
        return self._ask(payment, credits_count, "preview", request)[1]

    def send(self, payment_id: str, request: Request) -> None:
        """Ask the gateway for every refund it has not answered; what it leaves open is asked for later."""
        payment = self._book.payment(payment_id)
        for asked in payment.open_refunds:
            try:
                answer = self._send_refund(payment, asked)
            except GatewayUnavailable:
                return
            except GatewayRefused as refusal:
                self._refuse_refund(asked, str(refusal.details.get("code") or "REFUND_REFUSED"), request)
                continue
            if answer.status is RefundStatus.DONE:
                self._record_refund(asked, answer, request)
            elif answer.status is RefundStatus.FAILED:
                self._refuse_refund(asked, "REFUND_FAILED", request)

    def _ask(
        self, payment: Payment, credits_count: int | None, refund_id: str, request: Request
    ) -> tuple[Organisation, PaymentRefundRequested]:
        """Have a payment and its organisation decide on a refund."""
        organisation = self._book.ledger.organisation(payment.terms.organisation_id)
        purchase = payment.refundable_purchase()
        wanted = organisation.refundable(purchase) if credits_count is None else credits_count
        if credits_count is None and wanted == 0:
            raise RefundExceedsPurchase("all of the credits bought were spent, or are held", refundable=0)
        asked = payment.request_refund(refund_id, wanted, request)
        organisation.refund_purchase(
            purchase,
            asked.credits,
            payment_id=asked.payment_id,
            refund_id=refund_id,
            cost=Cost(asked.amount_minor, asked.tax_minor),
            request=request,
        )
        return organisation, asked

    def _send_refund(self, payment: Payment, asked: PaymentRefundRequested) -> Refund:
        assert payment.gateway_payment_id is not None
        if asked.total_minor == 0:  # credits that came with a plan cost nothing
            return Refund("", RefundStatus.DONE, 0)
        terms = payment.terms
        return self._book.gateway(terms.gateway).refund(
            RefundRequest(
                asked.refund_id, payment.gateway_payment_id, asked.total_minor, terms.currency.value
            )
        )

    def _record_refund(self, asked: PaymentRefundRequested, answer: Refund, request: Request) -> None:
        self._book.change(
            asked.payment_id,
            lambda payment: payment.refunded(asked.refund_id, answer.gateway_refund_id, request),
        )

    def _refuse_refund(self, asked: PaymentRefundRequested, reason: str, request: Request) -> None:
        """Record that the money does not go back, and bring the credits back with it."""

        def decide() -> tuple[Sequence[Aggregate], Named]:
            payment = self._book.payment(asked.payment_id)
            if not payment.refuse_refund(asked.refund_id, reason, request):
                return [], Named(asked.payment_id)
            organisation = self._book.ledger.organisation(asked.organisation_id)
            assert payment.purchase is not None
            (taken,) = [
                event.fact
                for event in self._book.store.refunds_of(organisation.id, payment.purchase)
                if isinstance(event.fact, PurchaseRefunded) and event.fact.refund_id == asked.refund_id
            ]
            organisation.reverse_purchase_refund(taken, request)
            return [payment, organisation], Named(asked.payment_id)

        self._book.recording.record(decide, None, Named)
