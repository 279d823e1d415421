"""The use cases of payments: from a quote to an order at a gateway, to credits, and to money that goes back.

A gateway is asked between two appends, never inside one: whatever is killed there, `follow_up` goes on from what
the log says. Each question to a gateway can be asked again (`domain.payments.gateway`), each piece of news told again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from domain.credits.auto_top_up import TopUpTerms
from domain.credits.errors import AutoTopUpAlreadyOn, PurchaseAlreadyRecorded
from domain.credits.ledger import Ledger
from domain.payments.auto_top_up_purchases import AutoTopUpPurchases
from domain.payments.checkout import PaymentOrders
from domain.payments.completion import complete
from domain.payments.errors import (
    BillingDetailsMissing,
    GatewayNotFound,
    PaymentNotFound,
    QuoteExpired,
    QuoteNotFound,
)
from domain.payments.events import FlagKey, PaymentOrdered, PaymentRequested, RefundRequested
from domain.payments.gateway import (
    Attempt,
    AttemptStatus,
    GatewayRefused,
    InvalidWebhookSignature,
    PaymentGateway,
)
from domain.payments.payment import CANCELLED_BY_CUSTOMER, PAID_STATUSES, UNPAID_STATUSES, Payment
from domain.payments.ports import QuoteStore, ReturnUrls
from domain.payments.quotes import (
    PurchasePlan,
    PurchaseQuote,
    check_can_buy,
    check_custom_amount,
    custom_terms,
    quote,
)
from domain.payments.refunds import PaymentRefunds, RefundRequest
from domain.payments.repository import PaymentReference, PaymentRepository, PaymentResult
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.errors import DuplicateKey, InvalidInput
from domain.shared.event_store import IdempotencyKey
from domain.shared.stream_keys import order_key, quote_key

NEVER_PAID: Final = "NEVER_PAID"
"""Why a payment is abandoned that nobody has paid for long."""
CHECKOUT_TIMEOUT: Final = timedelta(days=1)
CARD_CHARGE_TIMEOUT: Final = timedelta(days=2)
"""How long a card that is charged again may take: banks tell its owner, and take the money 36 hours later."""


class _QuoteAlreadyUsed(DuplicateKey):
    """A payment was made from the quote already."""


class Payments:
    """Commands on payments. Every method may raise StoreUnavailable."""

    def __init__(
        self,
        ledger: Ledger,
        gateways: Mapping[str, PaymentGateway],
        quote_store: QuoteStore,
        return_urls: Callable[[str], ReturnUrls],
    ) -> None:
        """Take the gateways by name, and what tells the ways of a payment's browser by its id."""
        self.ledger = ledger
        self.gateways = gateways
        self._quote_store = quote_store
        self._repository = PaymentRepository(ledger, gateways)
        self._orders = PaymentOrders(self._repository, quote_store, return_urls)
        self._refunds = PaymentRefunds(self._repository, quote_store)
        self.top_ups = AutoTopUpPurchases(self._repository)
        self._runner = self._repository.runner
        self._store = self._repository.store

    # ------------------------------------------------------------------------------- to be paid

    def quote(
        self,
        organisation_id: str,
        plan: PurchasePlan,
        credits_count: int,
        *,
        amount_minor: int | None = None,
        remark: str | None = None,
        quote_id: str,
        context: CommandContext,
        top_up: TopUpTerms | None = None,
    ) -> PurchaseQuote:
        """Say what a purchase costs, and keep to it for half an hour. See `domain.payments.quotes.quote`.

        With `top_up` the purchase switches auto top-up on, when it is paid.

        Raises:
            OrganisationNotFound, InvalidInput, ProAlreadyActive, BilledByAgreement.
        """
        quoted = quote(
            quote_id,
            self.ledger.organisation(organisation_id),
            plan,
            credits_count,
            amount_minor=amount_minor,
            remark=remark,
            prices=self.ledger.prices.at(context.at),
            now=context.at,
            top_up=top_up,
        )
        self._quote_store.save_quote(quoted)
        return quoted

    def find_quote(self, organisation_id: str, quote_id: str) -> PurchaseQuote:
        """Return a quote once more, whether it holds still or not.

        Raises:
            QuoteNotFound: there is none, or it is another organisation's.
        """
        quoted = self._quote_store.quote(organisation_id, quote_id)
        if quoted is None:
            raise QuoteNotFound(quote_id=quote_id)
        return quoted

    def begin(
        self,
        organisation_id: str,
        quote_id: str,
        gateway: str,
        *,
        payment_id: str,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> PaymentResult:
        """Begin to pay what a quote says, and open the order. A quote has one payment, ask as you will.

        Raises:
            OrganisationNotFound, QuoteNotFound, QuoteExpired, ProAlreadyActive, BilledByAgreement, IdempotencyConflict.
            AutoTopUpAlreadyOn, BillingDetailsMissing: a card is kept for somebody who is known, and one at a time.
            GatewayNotFound: no such gateway, or it does not take the currency, or charges no card again.
            GatewayUnavailable: the payment is recorded and its order is not open: ask again, or wait.
        """

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            if self._store.find_by_dedupe_key(quote_key(organisation_id, quote_id)) is not None:
                raise _QuoteAlreadyUsed
            organisation = self.ledger.organisation(organisation_id)
            quoted = self.find_quote(organisation_id, quote_id)
            if quoted.expires_at <= context.at:
                raise QuoteExpired(quote_id=quote_id)
            check_can_buy(organisation, quoted.plan, context.at)
            reached = self._repository.gateway(gateway, quoted.terms.currency)
            if quoted.top_up is not None:
                if not reached.supports_recurring_charges:
                    raise GatewayNotFound(f"the gateway {gateway!r} charges no card again", gateway=gateway)
                if organisation.has_auto_top_up:
                    raise AutoTopUpAlreadyOn
                if not self._quote_store.payer(organisation_id).email:
                    raise BillingDetailsMissing
            payment = Payment.request(
                payment_id,
                organisation_id,
                quoted.terms,
                gateway=gateway,
                quote_id=quote_id,
                context=context,
                top_up=quoted.top_up,
            )
            return [payment], PaymentReference(payment_id)

        try:
            begun = self._runner.run(
                decide, idempotency_key, PaymentReference, on_duplicate_key=_QuoteAlreadyUsed
            )
        except _QuoteAlreadyUsed:
            paying = self._store.find_by_dedupe_key(quote_key(organisation_id, quote_id))
            assert paying is not None
            assert isinstance(paying.event, PaymentRequested)
            return self._orders.open(paying.event.payment_id, context, repeated=True)
        return self._orders.open(begun.value.payment_id, context, repeated=begun.repeated)

    def begin_custom(
        self,
        organisation_id: str,
        amount_minor: int,
        remark: str,
        gateway: str,
        *,
        payment_id: str,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> PaymentResult:
        """Ask somebody else for an amount, tax on top; it adds no credits. The remark is kept beside the log.

        Who pays an amount of their own accord has it quoted.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, GatewayNotFound, GatewayUnavailable.
        """

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            organisation = self.ledger.organisation(organisation_id)
            asked_minor = check_custom_amount(0, amount_minor, remark)
            terms = custom_terms(asked_minor, organisation, self.ledger.prices.at(context.at))
            self._repository.gateway(gateway, terms.currency)
            payment = Payment.request(
                payment_id, organisation_id, terms, gateway=gateway, quote_id=None, context=context
            )
            return [payment], PaymentReference(payment_id)

        begun = self._runner.run(decide, idempotency_key, PaymentReference)
        self._quote_store.save_remark(organisation_id, begun.value.payment_id, remark)
        return self._orders.open(begun.value.payment_id, context, repeated=begun.repeated)

    def checkout(self, organisation_id: str, payment_id: str, *, context: CommandContext) -> PaymentResult:
        """Return the way to the gateway's page once more; none where there is nothing to pay any more.

        Raises:
            PaymentNotFound, GatewayNotFound, GatewayUnavailable, GatewayRefused.
        """
        self.payment(payment_id, organisation_id)
        return self._orders.open(payment_id, context)

    # ------------------------------------------------------------------------------------- news

    def handle_webhook(
        self, gateway: str, body: bytes, headers: Mapping[str, str], context: CommandContext
    ) -> None:
        """Take in a webhook: raw bytes, header names in lower case.

        News of an order that no payment has is of somebody else with the same account at the gateway: an
        order of ours is in the log before anybody is shown the way to it.

        Raises:
            GatewayNotFound: no such gateway.
            InvalidWebhookSignature: it is not signed by the gateway.
        """
        notification = self._repository.gateway(gateway).verify_webhook(body, headers)
        if notification.attempt is not None:
            with suppress(PaymentNotFound):
                self.record_attempt(gateway, notification.attempt, context)

    def handle_return(
        self, payment_id: str, fields: Mapping[str, str], context: CommandContext
    ) -> PaymentResult:
        """Take in what the browser brought back from the gateway's page.

        What is not signed says nothing, so the gateway itself is asked instead.

        Raises:
            PaymentNotFound, GatewayNotFound, GatewayUnavailable.
        """
        payment = self.payment(payment_id)
        try:
            notification = self._repository.gateway(payment.terms.gateway).verify_return(fields)
        except InvalidWebhookSignature:
            return self.recheck(payment_id, context=context)
        if notification.attempt is None or notification.attempt.order_id != payment.order_id:
            return self.recheck(payment_id, context=context)
        return self.record_attempt(payment.terms.gateway, notification.attempt, context)

    def record_attempt(self, gateway: str, attempt: Attempt, context: CommandContext) -> PaymentResult:
        """Take in what is known of an attempt at paying: any number of times, in any order.

        Money that was taken completes the payment, and its credits are there, in one append.

        Raises:
            PaymentNotFound: no payment has this order.
        """
        order = self._store.find_by_dedupe_key(order_key(gateway, attempt.order_id))
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
        """Ask the gateway what has become of a payment; have it charge a card that it has not charged yet.

        Raises:
            PaymentNotFound, GatewayNotFound, GatewayUnavailable.
        """
        payment = self.payment(payment_id, organisation_id)
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

    # ----------------------------------------------------------------------------- and the end

    def abandon(self, organisation_id: str, payment_id: str, *, context: CommandContext) -> PaymentResult:
        """Give a payment up, as the payer did. Should the gateway take the money after all, it completes.

        Raises:
            PaymentNotFound.
            PaymentClosed: it is paid, or has failed.
        """
        self.payment(payment_id, organisation_id)
        return self._repository.change(
            payment_id, lambda payment: payment.abandon(CANCELLED_BY_CUSTOMER, context)
        )

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
        """Give money of a payment back, and take what it bought: see `PaymentRefunds.refund`.

        Raises:
            PaymentNotFound, InvalidInput, IdempotencyConflict, PaymentNotRefundable, RefundExceedsPurchase,
            RefundExceedsRefundableFee.
        """
        return self._refunds.refund(
            organisation_id,
            payment_id,
            refund_request,
            refund_id=refund_id,
            context=context,
            idempotency_key=idempotency_key,
        )

    def refund_preview(
        self, organisation_id: str, payment_id: str, refund_request: RefundRequest, *, context: CommandContext
    ) -> RefundRequested:
        """Return what a refund would take and give back now; nothing is recorded.

        Raises:
            PaymentNotFound, InvalidInput, PaymentNotRefundable, RefundExceedsPurchase, RefundExceedsRefundableFee.
        """
        return self._refunds.preview(organisation_id, payment_id, refund_request, context)

    def settle_flag(
        self,
        organisation_id: str,
        payment_id: str,
        key: FlagKey,
        note: str,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> PaymentResult:
        """Record that somebody dealt with what was flagged; their note is kept beside the log.

        Raises:
            PaymentNotFound, IdempotencyConflict.
            InvalidInput: the note says nothing.
            FlagNotOpen: there is no such flag, or it is settled.
        """
        if not note.strip():
            raise InvalidInput("note", "a note says what was done about it")

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            payment = self._repository.payment(payment_id, organisation_id)
            payment.settle_flag(key, context)
            return [payment], PaymentReference(payment_id)

        settled = self._runner.run(decide, idempotency_key, PaymentReference)
        self._quote_store.save_note(organisation_id, payment_id, key, note)
        return self._repository.result(payment_id, repeated=settled.repeated)

    def follow_up(self, payment_id: str, *, context: CommandContext) -> PaymentResult:
        """Go on with a payment wherever it was left: open its order, ask what became of it, send its refunds.

        One that nobody has paid for a day is abandoned; the money may still come, and then it completes.

        Raises:
            PaymentNotFound, GatewayNotFound, GatewayUnavailable.
        """
        payment = self.payment(payment_id)
        if payment.status not in PAID_STATUSES:
            self.recheck(payment_id, context=context)
            waits = CHECKOUT_TIMEOUT if payment.terms.card_payment_id is None else CARD_CHARGE_TIMEOUT
            if context.at - payment.terms.recorded_at >= waits:
                self._repository.change(payment_id, lambda each: _abandon_if_unpaid(each, context))
        self._refunds.send(payment_id, context)
        return self._repository.result(payment_id)

    def payment(self, payment_id: str, organisation_id: str | None = None) -> Payment:
        """Return a payment as it is now, of an organisation if one is named.

        Raises:
            OrganisationNotFound, PaymentNotFound: there is none, or it is another organisation's.
        """
        return self._repository.payment(payment_id, organisation_id)

    def remarks(self, organisation_id: str, payment_ids: Sequence[str]) -> Mapping[str, str]:
        """Return what custom payments are said to be for."""
        return self._quote_store.remarks(organisation_id, payment_ids) if payment_ids else {}

    def notes(self, payment_ids: Sequence[str]) -> Mapping[tuple[str, FlagKey], str]:
        """Return what staff wrote about flags that they settled, by payment and flag."""
        return self._quote_store.notes(payment_ids) if payment_ids else {}

    # -------------------------------------------------------------------------------- mechanism

    def _record_attempt(
        self, payment_id: str, attempt: Attempt, context: CommandContext, *, recorded_before: bool
    ) -> PaymentResult:
        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            payment = self.payment(payment_id)
            if not payment.record_attempt(attempt, context):
                return [payment], PaymentReference(payment_id)
            return complete(
                self.ledger, payment, attempt, context, recorded_before=recorded_before
            ), PaymentReference(payment_id)

        terms = self.payment(payment_id).terms
        replaced = None if terms.top_up is None else self.top_ups.find_card_payment_id(terms.organisation_id)
        self._runner.run(decide, None, PaymentReference, on_duplicate_key=PurchaseAlreadyRecorded)
        if replaced is not None:
            self.top_ups.forget_replaced_card(terms.organisation_id, replaced)
        return self._repository.result(payment_id)


def _decisive_attempts(attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    """Return the attempts that say where an order stands: all that took money, or else the latest."""
    captured = [attempt for attempt in attempts if attempt.status is AttemptStatus.CAPTURED]
    return captured or attempts[-1:]


def _abandon_if_unpaid(payment: Payment, context: CommandContext) -> None:
    if payment.status in UNPAID_STATUSES:
        payment.abandon(NEVER_PAID, context)
