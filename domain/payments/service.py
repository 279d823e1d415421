"""Commands on payments: quotes, the beginning of a payment, its checkout, its flags.

`domain.payments.tracking` follows what gateways report, `domain.payments.refunds` gives money back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.credits.auto_top_up import TopUpTerms
from domain.credits.errors import AutoTopUpAlreadyOn
from domain.payments.checkout import PaymentOrders
from domain.payments.errors import BillingDetailsMissing, GatewayNotFound, QuoteExpired, QuoteNotFound
from domain.payments.events import FlagKey, PaymentRequested
from domain.payments.payment import CANCELLED_BY_CUSTOMER, Payment
from domain.payments.ports import QuoteStore
from domain.payments.quotes import (
    PurchasePlan,
    PurchaseQuote,
    check_can_buy,
    check_custom_amount,
    custom_terms,
    quote,
)
from domain.payments.repository import PaymentReference, PaymentRepository, PaymentResult
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.errors import DuplicateKey, InvalidInput
from domain.shared.event_store import IdempotencyKey
from domain.shared.stream_keys import quote_key


class _QuoteAlreadyUsed(DuplicateKey):
    """A payment was made from the quote already."""


class Payments:
    """Commands on payments. Every method may raise StoreUnavailable."""

    def __init__(self, repository: PaymentRepository, orders: PaymentOrders, quote_store: QuoteStore) -> None:
        self.gateways = repository.gateways
        self._ledger = repository.ledger
        self._repository = repository
        self._orders = orders
        self._quote_store = quote_store
        self._runner = repository.runner
        self._store = repository.store

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
        """Quote a purchase. The price is kept for half an hour, see `domain.payments.quotes.quote`.

        With `top_up` the purchase switches auto top-up on when it is paid.

        Raises:
            OrganisationNotFound, InvalidInput, ProAlreadyActive, BilledByAgreement.
        """
        quoted = quote(
            quote_id,
            self._ledger.organisation(organisation_id),
            plan,
            credits_count,
            amount_minor=amount_minor,
            remark=remark,
            prices=self._ledger.prices.at(context.at),
            now=context.at,
            top_up=top_up,
        )
        self._quote_store.save_quote(quoted)
        return quoted

    def find_quote(self, organisation_id: str, quote_id: str) -> PurchaseQuote:
        """Return a quote, even if it has expired.

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
        """Begin to pay a quote, and open the order. A quote has one payment: a repeat returns it.

        Raises:
            OrganisationNotFound, QuoteNotFound, QuoteExpired, IdempotencyConflict.
            ProAlreadyActive, BilledByAgreement: the plan is not for sale to the organisation.
            AutoTopUpAlreadyOn: the quote would switch auto top-up on.
            BillingDetailsMissing: auto top-up needs the payer's email address.
            GatewayNotFound: no such gateway, or it does not take the currency, or cannot charge a card again.
            GatewayUnavailable: the payment is recorded, but its order is not open yet: retry, or wait.
        """

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            if self._store.find_by_dedupe_key(quote_key(organisation_id, quote_id)) is not None:
                raise _QuoteAlreadyUsed
            organisation = self._ledger.organisation(organisation_id)
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
        """Ask an organisation for an amount, plus tax; it adds no credits.

        The remark says what it is for; it is stored outside the log.

        An organisation that wants to pay an amount by itself asks for a quote instead.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, GatewayNotFound, GatewayUnavailable.
        """

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            organisation = self._ledger.organisation(organisation_id)
            asked_minor = check_custom_amount(0, amount_minor, remark)
            terms = custom_terms(asked_minor, organisation, self._ledger.prices.at(context.at))
            self._repository.gateway(gateway, terms.currency)
            payment = Payment.request(
                payment_id, organisation_id, terms, gateway=gateway, quote_id=None, context=context
            )
            return [payment], PaymentReference(payment_id)

        begun = self._runner.run(decide, idempotency_key, PaymentReference)
        self._quote_store.save_remark(organisation_id, begun.value.payment_id, remark)
        return self._orders.open(begun.value.payment_id, context, repeated=begun.repeated)

    def checkout(self, organisation_id: str, payment_id: str, *, context: CommandContext) -> PaymentResult:
        """Return the checkout of a payment again; none if there is nothing left to pay.

        Raises:
            PaymentNotFound, GatewayNotFound, GatewayUnavailable, GatewayRefused.
        """
        self.payment(payment_id, organisation_id)
        return self._orders.open(payment_id, context)

    def abandon(self, organisation_id: str, payment_id: str, *, context: CommandContext) -> PaymentResult:
        """Abandon a payment that the payer cancelled. If the gateway takes the money later, it is completed.

        Raises:
            PaymentNotFound.
            PaymentClosed: it is paid, or has failed.
        """
        self.payment(payment_id, organisation_id)
        return self._repository.change(
            payment_id, lambda payment: payment.abandon(CANCELLED_BY_CUSTOMER, context)
        )

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
        """Record that somebody has dealt with a flag. The note is stored outside the log.

        Raises:
            PaymentNotFound, IdempotencyConflict.
            InvalidInput: the note is empty.
            FlagNotOpen: there is no such flag, it is settled, or its money is on its way back.
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

    def payment(self, payment_id: str, organisation_id: str | None = None) -> Payment:
        """Return a payment as it is now. If an organisation is named, the payment must belong to it.

        Raises:
            OrganisationNotFound: there is no such organisation.
            PaymentNotFound: there is no such payment, or it belongs to another organisation.
        """
        return self._repository.payment(payment_id, organisation_id)

    def remarks(self, organisation_id: str, payment_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the remarks of custom payments, by payment id: what each payment is for."""
        return self._quote_store.remarks(organisation_id, payment_ids) if payment_ids else {}

    def notes(self, payment_ids: Sequence[str]) -> Mapping[tuple[str, FlagKey], str]:
        """Return the notes of staff on settled flags, by payment id and flag."""
        return self._quote_store.notes(payment_ids) if payment_ids else {}
