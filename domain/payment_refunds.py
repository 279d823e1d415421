"""Money that goes back: what it bought is taken first; then the gateway is asked until it gives it back.

What can go back is money of credits that are unspent, of a plan's fee or a custom payment, and all that an
attempt took which pays for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.aggregate import Aggregate
from domain.errors import InvalidInput, RefundExceedsPurchase
from domain.facts import Plan, PurchaseRefunded, Request
from domain.gateway import GatewayRefused, GatewayUnavailable, Refund, RefundRequest, RefundStatus
from domain.money import Cost
from domain.organisation import Organisation
from domain.payment import Payment
from domain.payment_book import Desk, Named, PaymentBook, PaymentStanding
from domain.payment_completion import pro_until
from domain.payment_facts import Asked, AttemptRefundRequested, PaymentRefundRequested
from domain.ports import Once


class CreditsBack(msgspec.Struct, frozen=True):
    """So many unspent credits of the payment are to be taken back, or all, and their money goes back."""

    credits: int | None = None


class FeeBack(msgspec.Struct, frozen=True):
    """Money is to go back that bought no credits: an amount without tax, whose share goes with it.

    All of a plan's fee ends the subscription that it paid for; a part leaves it.
    """

    amount_minor: int


class AttemptBack(msgspec.Struct, frozen=True):
    """All that an attempt took is to go back, because it pays for nothing."""

    gateway_payment_id: str


Back = CreditsBack | FeeBack | AttemptBack


class PaymentRefunds:
    """Commands on refunds. Every method may raise StoreUnavailable."""

    def __init__(self, book: PaymentBook, desk: Desk) -> None:
        self._book = book
        self._desk = desk

    def refund(
        self,
        organisation_id: str,
        payment_id: str,
        back: Back,
        *,
        refund_id: str,
        request: Request,
        once: Once | None = None,
    ) -> PaymentStanding:
        """Give money of a payment back, and take what it bought.

        Credits and plan are gone at once. The gateway is asked until it answers; if it refuses, they are
        back.

        Raises:
            PaymentUnknown, IdempotencyConflict.
            InvalidInput: below 1 is to go back, or all credits of a payment that bought none.
            PaymentNotRefundable: it is not paid, or took nothing of this kind.
            RefundExceedsPurchase: fewer credits can be taken back, or none.
            RefundExceedsPayment: less of the fee can go back, or nothing.
        """

        def decide() -> tuple[Sequence[Aggregate], Named]:
            payment = self._book.payment(payment_id, organisation_id)
            changed, _ = self._ask(payment, back, refund_id, request)
            return changed, Named(payment_id, refund_id)

        asked = self._book.recording.record(decide, once, Named)
        self.send(payment_id, request)
        return self._book.standing(payment_id, refund_id=asked.recorded.refund_id, repeated=asked.repeated)

    def preview(self, organisation_id: str, payment_id: str, back: Back, request: Request) -> Asked:
        """Return what a refund would take and give back now; nothing is recorded.

        Raises:
            PaymentUnknown, InvalidInput, PaymentNotRefundable, RefundExceedsPurchase, RefundExceedsPayment.
        """
        payment = self._book.payment(payment_id, organisation_id)
        return self._ask(payment, back, "preview", request)[1]

    def send(self, payment_id: str, request: Request) -> None:
        """Ask the gateway for every refund it has not answered; what it leaves open is asked for later.

        One at a time asks: a gateway that is asked twice at once may give the money back twice.
        """
        if self._book.payment(payment_id).open_refunds:
            with self._desk.turn(payment_id):
                self._send(self._book.payment(payment_id), request)

    def _send(self, payment: Payment, request: Request) -> None:
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
        self, payment: Payment, back: Back, refund_id: str, request: Request
    ) -> tuple[Sequence[Aggregate], Asked]:
        """Have a payment, and its organisation, decide on a refund; return who decided, and what."""
        if isinstance(back, AttemptBack):
            asked = payment.request_attempt_refund(refund_id, back.gateway_payment_id, request)
            return [payment], asked
        organisation = self._book.ledger.organisation(payment.terms.organisation_id)
        if isinstance(back, FeeBack):
            return [payment, organisation], _ask_for_fee(
                payment, organisation, back.amount_minor, refund_id, request
            )
        return [payment, organisation], self._ask_for_credits(
            payment, organisation, back.credits, refund_id, request
        )

    def _ask_for_credits(
        self,
        payment: Payment,
        organisation: Organisation,
        credits_count: int | None,
        refund_id: str,
        request: Request,
    ) -> PaymentRefundRequested:
        if credits_count is None and payment.purchase is None and payment.refundable_fee_minor:
            raise InvalidInput("amount_minor", "say how much is to go back: the payment bought no credits")
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
        return asked

    def _send_refund(self, payment: Payment, asked: Asked) -> Refund:
        if asked.total_minor == 0:  # credits that came with a plan cost nothing
            return Refund("", RefundStatus.DONE, 0)
        return self._book.gateway(payment.terms.gateway).refund(
            RefundRequest(
                asked.refund_id, payment.attempt_of(asked), asked.total_minor, payment.currency_of(asked)
            )
        )

    def _record_refund(self, asked: Asked, answer: Refund, request: Request) -> None:
        self._book.change(
            asked.payment_id,
            lambda payment: payment.refunded(asked.refund_id, answer.gateway_refund_id, request),
        )

    def _refuse_refund(self, asked: Asked, reason: str, request: Request) -> None:
        """Record that the money does not go back, and bring back with it what was taken."""

        def decide() -> tuple[Sequence[Aggregate], Named]:
            payment = self._book.payment(asked.payment_id)
            if not payment.refuse_refund(asked.refund_id, reason, request):
                return [], Named(asked.payment_id)
            if isinstance(asked, AttemptRefundRequested):
                return [payment], Named(asked.payment_id)
            organisation = self._book.ledger.organisation(asked.organisation_id)
            if asked.credits:
                assert payment.purchase is not None
                (taken,) = [
                    event.fact
                    for event in self._book.store.refunds_of(organisation.id, payment.purchase)
                    if isinstance(event.fact, PurchaseRefunded) and event.fact.refund_id == asked.refund_id
                ]
                organisation.reverse_purchase_refund(taken, request)
            elif asked.pro_until is not None:
                organisation.resume_pro(asked.pro_until, request)
            return [payment, organisation], Named(asked.payment_id)

        self._book.recording.record(decide, None, Named)


def _ask_for_fee(
    payment: Payment, organisation: Organisation, amount_minor: int, refund_id: str, request: Request
) -> PaymentRefundRequested:
    """Have money of the fee go back; the last of it ends the subscription that the payment began."""
    until = pro_until(payment)
    is_all = amount_minor == payment.refundable_fee_minor
    ends = until if is_all and until is not None and organisation.has_pro_until(until) else None
    asked = payment.request_fee_refund(refund_id, amount_minor, request, pro_until=ends)
    if ends is not None:
        organisation.change_plan(Plan.PAY_AS_YOU_GO, None, request)
    return asked
