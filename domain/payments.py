"""The use cases of payments: from a quote to an order at a gateway, to credits, and to money that goes back.

A gateway is asked between two appends, never inside one: whatever is killed there, `attend` goes on from what
the log says. Each question to a gateway can be asked again (`domain.gateway`), each piece of news told again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from domain.aggregate import Aggregate
from domain.auto_top_up import TopUpTerms
from domain.errors import (
    AutoTopUpIsOn,
    BillingDetailsMissing,
    GatewayUnknown,
    InvalidInput,
    PaymentUnknown,
    PurchaseAlreadyRecorded,
    QuoteExpired,
    QuoteUnknown,
    RepeatedKey,
)
from domain.facts import Request
from domain.gateway import (
    Attempt,
    AttemptStatus,
    GatewayRefused,
    NoticeRefused,
    PaymentGateway,
)
from domain.identity import order_key, quote_key
from domain.ledger import Ledger
from domain.payment import CANCELLED, PAID, UNPAID, Payment
from domain.payment_book import Desk, Named, PaymentBook, PaymentStanding, Ways
from domain.payment_completion import complete
from domain.payment_facts import Asked, FlagKey, PaymentOrdered, PaymentRequested
from domain.payment_orders import PaymentOrders
from domain.payment_refunds import Back, PaymentRefunds
from domain.ports import Once
from domain.purchases import PurchasePlan, PurchaseQuote, check_may_buy, checked_amount, custom_terms, quote
from domain.top_ups import TopUps

NEVER_PAID: Final = "NEVER_PAID"
"""Why a payment is abandoned that nobody has paid for long."""
ABANDONED_AFTER: Final = timedelta(days=1)
CHARGED_WITHIN: Final = timedelta(days=2)
"""How long a card that is charged again may take: banks tell its owner, and take the money 36 hours later."""


class _QuotePaid(RepeatedKey):
    """A payment was made from the quote already."""


class Payments:
    """Commands on payments. Every method may raise StoreUnavailable."""

    def __init__(
        self,
        ledger: Ledger,
        gateways: Mapping[str, PaymentGateway],
        desk: Desk,
        ways: Callable[[str], Ways],
    ) -> None:
        """Take the gateways by name, and what tells the ways of a payment's browser by its id."""
        self.ledger = ledger
        self.gateways = gateways
        self._desk = desk
        self._book = PaymentBook(ledger, gateways)
        self._orders = PaymentOrders(self._book, desk, ways)
        self._refunds = PaymentRefunds(self._book, desk)
        self.top_ups = TopUps(self._book)
        self._recording = self._book.recording
        self._store = self._book.store

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
        request: Request,
        top_up: TopUpTerms | None = None,
    ) -> PurchaseQuote:
        """Say what a purchase costs, and keep to it for half an hour. See `domain.purchases.quote`.

        With `top_up` the purchase switches auto top-up on, when it is paid.

        Raises:
            OrganisationUnknown, InvalidInput, ProAlready, BillingIsCustom.
        """
        quoted = quote(
            quote_id,
            self.ledger.organisation(organisation_id),
            plan,
            credits_count,
            amount_minor=amount_minor,
            remark=remark,
            prices=self.ledger.prices.at(request.at),
            now=request.at,
            top_up=top_up,
        )
        self._desk.keep_quote(quoted)
        return quoted

    def quoted(self, organisation_id: str, quote_id: str) -> PurchaseQuote:
        """Return a quote once more, whether it holds still or not.

        Raises:
            QuoteUnknown: there is none, or it is another organisation's.
        """
        quoted = self._desk.quote(organisation_id, quote_id)
        if quoted is None:
            raise QuoteUnknown(quote_id=quote_id)
        return quoted

    def begin(
        self,
        organisation_id: str,
        quote_id: str,
        gateway: str,
        *,
        payment_id: str,
        request: Request,
        once: Once | None = None,
    ) -> PaymentStanding:
        """Begin to pay what a quote says, and open the order. A quote has one payment, ask as you will.

        Raises:
            OrganisationUnknown, QuoteUnknown, QuoteExpired, ProAlready, BillingIsCustom, IdempotencyConflict.
            AutoTopUpIsOn, BillingDetailsMissing: a card is kept for somebody who is known, and one at a time.
            GatewayUnknown: no such gateway, or it does not take the currency, or charges no card again.
            GatewayUnavailable: the payment is recorded and its order is not open: ask again, or wait.
        """

        def decide() -> tuple[Sequence[Aggregate], Named]:
            if self._store.event_under(quote_key(organisation_id, quote_id)) is not None:
                raise _QuotePaid
            organisation = self.ledger.organisation(organisation_id)
            quoted = self.quoted(organisation_id, quote_id)
            if quoted.expires_at <= request.at:
                raise QuoteExpired(quote_id=quote_id)
            check_may_buy(organisation, quoted.plan, request.at)
            reached = self._book.gateway(gateway, quoted.terms.currency)
            if quoted.top_up is not None:
                if not reached.charges_again:
                    raise GatewayUnknown(f"the gateway {gateway!r} charges no card again", gateway=gateway)
                if organisation.has_auto_top_up:
                    raise AutoTopUpIsOn
                if not self._desk.payer(organisation_id).email:
                    raise BillingDetailsMissing
            payment = Payment.request(
                payment_id,
                organisation_id,
                quoted.terms,
                gateway=gateway,
                quote_id=quote_id,
                request=request,
                top_up=quoted.top_up,
            )
            return [payment], Named(payment_id)

        try:
            begun = self._recording.record(decide, once, Named, on_repeated=_QuotePaid)
        except _QuotePaid:
            paying = self._store.event_under(quote_key(organisation_id, quote_id))
            assert paying is not None
            assert isinstance(paying.fact, PaymentRequested)
            return self._orders.open(paying.fact.payment_id, request, repeated=True)
        return self._orders.open(begun.recorded.payment_id, request, repeated=begun.repeated)

    def begin_custom(
        self,
        organisation_id: str,
        amount_minor: int,
        remark: str,
        gateway: str,
        *,
        payment_id: str,
        request: Request,
        once: Once | None = None,
    ) -> PaymentStanding:
        """Ask somebody else for an amount, tax on top; it adds no credits. The remark is kept beside the log.

        Who pays an amount of their own accord has it quoted.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, GatewayUnknown, GatewayUnavailable.
        """

        def decide() -> tuple[Sequence[Aggregate], Named]:
            organisation = self.ledger.organisation(organisation_id)
            asked_minor = checked_amount(0, amount_minor, remark)
            terms = custom_terms(asked_minor, organisation, self.ledger.prices.at(request.at))
            self._book.gateway(gateway, terms.currency)
            payment = Payment.request(
                payment_id, organisation_id, terms, gateway=gateway, quote_id=None, request=request
            )
            return [payment], Named(payment_id)

        begun = self._recording.record(decide, once, Named)
        self._desk.keep_remark(organisation_id, begun.recorded.payment_id, remark)
        return self._orders.open(begun.recorded.payment_id, request, repeated=begun.repeated)

    def checkout(self, organisation_id: str, payment_id: str, *, request: Request) -> PaymentStanding:
        """Return the way to the gateway's page once more; none where there is nothing to pay any more.

        Raises:
            PaymentUnknown, GatewayUnknown, GatewayUnavailable, GatewayRefused.
        """
        self.payment(payment_id, organisation_id)
        return self._orders.open(payment_id, request)

    # ------------------------------------------------------------------------------------- news

    def hear(self, gateway: str, body: bytes, headers: Mapping[str, str], request: Request) -> None:
        """Take in a webhook: raw bytes, header names in lower case.

        News of an order that no payment has is of somebody else with the same account at the gateway: an
        order of ours is in the log before anybody is shown the way to it.

        Raises:
            GatewayUnknown: no such gateway.
            NoticeRefused: it is not signed by the gateway.
        """
        notice = self._book.gateway(gateway).read_notice(body, headers)
        if notice.attempt is not None:
            with suppress(PaymentUnknown):
                self.learn(gateway, notice.attempt, request)

    def come_back(self, payment_id: str, fields: Mapping[str, str], request: Request) -> PaymentStanding:
        """Take in what the browser brought back from the gateway's page.

        What is not signed says nothing, so the gateway itself is asked instead.

        Raises:
            PaymentUnknown, GatewayUnknown, GatewayUnavailable.
        """
        payment = self.payment(payment_id)
        try:
            notice = self._book.gateway(payment.terms.gateway).read_return(fields)
        except NoticeRefused:
            return self.recheck(payment_id, request=request)
        if notice.attempt is None or notice.attempt.order_id != payment.order_id:
            return self.recheck(payment_id, request=request)
        return self.learn(payment.terms.gateway, notice.attempt, request)

    def learn(self, gateway: str, attempt: Attempt, request: Request) -> PaymentStanding:
        """Take in what is known of an attempt at paying: any number of times, in any order.

        Money that was taken completes the payment, and its credits are there, in one append.

        Raises:
            PaymentUnknown: no payment has this order.
        """
        order = self._store.event_under(order_key(gateway, attempt.order_id))
        if order is None:
            raise PaymentUnknown(order_id=attempt.order_id)
        assert isinstance(order.fact, PaymentOrdered)
        payment_id = order.fact.payment_id
        try:
            return self._learn(payment_id, attempt, request, recorded_before=False)
        except PurchaseAlreadyRecorded:
            return self._learn(payment_id, attempt, request, recorded_before=True)

    def recheck(
        self, payment_id: str, *, organisation_id: str | None = None, request: Request
    ) -> PaymentStanding:
        """Ask the gateway what has become of a payment; have it charge a card that it has not charged yet.

        Raises:
            PaymentUnknown, GatewayUnknown, GatewayUnavailable.
        """
        payment = self.payment(payment_id, organisation_id)
        if payment.order_id is None:
            standing = self._orders.open(payment_id, request)
            if payment.terms.charged_to is None or standing.payment.order_id is None:
                return standing
            payment = standing.payment
        assert payment.order_id is not None
        try:
            attempts = self._book.gateway(payment.terms.gateway).attempts(payment.order_id)
        except GatewayRefused:
            attempts = ()
        if not attempts and payment.terms.charged_to is not None:
            attempts = self._orders.charge(payment_id, request)
        for attempt in _telling(attempts):
            self.learn(payment.terms.gateway, attempt, request)
        return self._book.standing(payment_id)

    # ----------------------------------------------------------------------------- and the end

    def abandon(self, organisation_id: str, payment_id: str, *, request: Request) -> PaymentStanding:
        """Give a payment up, as the payer did. Should the gateway take the money after all, it completes.

        Raises:
            PaymentUnknown.
            PaymentClosed: it is paid, or has failed.
        """
        self.payment(payment_id, organisation_id)
        return self._book.change(payment_id, lambda payment: payment.abandon(CANCELLED, request))

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
        """Give money of a payment back, and take what it bought: see `PaymentRefunds.refund`.

        Raises:
            PaymentUnknown, InvalidInput, IdempotencyConflict, PaymentNotRefundable, RefundExceedsPurchase,
            RefundExceedsPayment.
        """
        return self._refunds.refund(
            organisation_id, payment_id, back, refund_id=refund_id, request=request, once=once
        )

    def refund_preview(self, organisation_id: str, payment_id: str, back: Back, *, request: Request) -> Asked:
        """Return what a refund would take and give back now; nothing is recorded.

        Raises:
            PaymentUnknown, InvalidInput, PaymentNotRefundable, RefundExceedsPurchase, RefundExceedsPayment.
        """
        return self._refunds.preview(organisation_id, payment_id, back, request)

    def settle_flag(
        self,
        organisation_id: str,
        payment_id: str,
        key: FlagKey,
        note: str,
        *,
        request: Request,
        once: Once | None = None,
    ) -> PaymentStanding:
        """Record that somebody dealt with what was flagged; their note is kept beside the log.

        Raises:
            PaymentUnknown, IdempotencyConflict.
            InvalidInput: the note says nothing.
            FlagNotOpen: there is no such flag, or it is settled.
        """
        if not note.strip():
            raise InvalidInput("note", "a note says what was done about it")

        def decide() -> tuple[Sequence[Aggregate], Named]:
            payment = self._book.payment(payment_id, organisation_id)
            payment.settle_flag(key, request)
            return [payment], Named(payment_id)

        settled = self._recording.record(decide, once, Named)
        self._desk.keep_note(organisation_id, payment_id, key, note)
        return self._book.standing(payment_id, repeated=settled.repeated)

    def attend(self, payment_id: str, *, request: Request) -> PaymentStanding:
        """Go on with a payment wherever it was left: open its order, ask what became of it, send its refunds.

        One that nobody has paid for a day is abandoned; the money may still come, and then it completes.

        Raises:
            PaymentUnknown, GatewayUnknown, GatewayUnavailable.
        """
        payment = self.payment(payment_id)
        if payment.status not in PAID:
            self.recheck(payment_id, request=request)
            waits = ABANDONED_AFTER if payment.terms.charged_to is None else CHARGED_WITHIN
            if request.at - payment.terms.recorded_at >= waits:
                self._book.change(payment_id, lambda each: _give_up(each, request))
        self._refunds.send(payment_id, request)
        return self._book.standing(payment_id)

    def payment(self, payment_id: str, organisation_id: str | None = None) -> Payment:
        """Return a payment as it is now, of an organisation if one is named.

        Raises:
            OrganisationUnknown, PaymentUnknown: there is none, or it is another organisation's.
        """
        return self._book.payment(payment_id, organisation_id)

    def remarks(self, organisation_id: str, payment_ids: Sequence[str]) -> Mapping[str, str]:
        """Return what custom payments are said to be for."""
        return self._desk.remarks(organisation_id, payment_ids) if payment_ids else {}

    def notes(self, payment_ids: Sequence[str]) -> Mapping[tuple[str, FlagKey], str]:
        """Return what staff wrote about flags that they settled, by payment and flag."""
        return self._desk.notes(payment_ids) if payment_ids else {}

    # -------------------------------------------------------------------------------- mechanism

    def _learn(
        self, payment_id: str, attempt: Attempt, request: Request, *, recorded_before: bool
    ) -> PaymentStanding:
        def decide() -> tuple[Sequence[Aggregate], Named]:
            payment = self.payment(payment_id)
            if not payment.learn(attempt, request):
                return [payment], Named(payment_id)
            return complete(self.ledger, payment, attempt, request, recorded_before=recorded_before), Named(
                payment_id
            )

        terms = self.payment(payment_id).terms
        replaced = None if terms.top_up is None else self.top_ups.card_of(terms.organisation_id)
        self._recording.record(decide, None, Named, on_repeated=PurchaseAlreadyRecorded)
        if replaced is not None:
            self.top_ups.forget_replaced(terms.organisation_id, replaced)
        return self._book.standing(payment_id)


def _telling(attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    """Return the attempts that say where an order stands: all that took money, or else the latest."""
    captured = [attempt for attempt in attempts if attempt.status is AttemptStatus.CAPTURED]
    return captured or attempts[-1:]


def _give_up(payment: Payment, request: Request) -> None:
    if payment.status in UNPAID:
        payment.abandon(NEVER_PAID, request)
