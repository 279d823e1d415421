"""The Payment aggregate: one per order at a gateway, from the wish to pay to the money that went back.

Money is never lost sight of: what an attempt took counts whenever it is heard of, in whatever order, and what
does not fit the order is flagged.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from domain.aggregate import Aggregate, Event
from domain.auto_top_up import TopUpTerms
from domain.errors import (
    InvalidInput,
    InvariantBroken,
    PaymentClosed,
    PaymentNotRefundable,
    RefundExceedsPurchase,
)
from domain.facts import Request
from domain.gateway import Attempt, AttemptStatus
from domain.identity import payment_stream
from domain.money import AMOUNT_MINOR_MAX, Currency
from domain.payment_facts import (
    Flag,
    PaymentAbandoned,
    PaymentCompleted,
    PaymentFailed,
    PaymentFlagged,
    PaymentKind,
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentRefundRequested,
    PaymentRequested,
    PaymentStatus,
)

UNPAID: Final = frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING})
PAID: Final = frozenset({PaymentStatus.COMPLETED, PaymentStatus.REFUNDED})
CANCELLED: Final = "CUSTOMER_CANCELLED"
"""Why a payment is abandoned where the gateway has no word of its own for it."""


_Head = tuple[datetime, str | None, str, str, str]
"""What every fact of a payment begins with."""


class Terms(msgspec.Struct, frozen=True):
    """What is to be paid, in minor units; tax comes on top of the credits and the fee.

    `credits` are all that the payment adds, `price_version` names the prices it was made at.
    """

    kind: PaymentKind
    credits: int
    unit_price_millionths: int
    credits_minor: int
    fee_minor: int
    tax_minor: int
    currency: Currency
    price_version: str

    @property
    def amount_minor(self) -> int:
        """What is to be paid without tax."""
        return self.credits_minor + self.fee_minor

    @property
    def total_minor(self) -> int:
        """What the payer pays."""
        return self.amount_minor + self.tax_minor


class RefundOfPayment(msgspec.Struct, frozen=True):
    """Money on its way back (`went_back` is None), or gone back, or not."""

    asked: PaymentRefundRequested
    went_back: bool | None = None


class Payment(Aggregate):
    """What is known of a payment. `terms` say what was to be paid, and are there from the first event on."""

    __slots__ = ("flags", "gateway_payment_id", "order_id", "purchase", "refunds", "status", "terms")

    terms: PaymentRequested

    def __init__(self, stream: UUID) -> None:
        super().__init__(stream)
        self.status = PaymentStatus.CREATED
        self.order_id: str | None = None
        self.gateway_payment_id: str | None = None
        self.purchase: int | None = None
        self.flags: set[tuple[Flag, str, int]] = set()
        self.refunds: dict[str, RefundOfPayment] = {}

    # ----------------------------------------------------------------- decisions

    @classmethod
    def request(
        cls,
        payment_id: str,
        organisation_id: str,
        terms: Terms,
        *,
        gateway: str,
        quote_id: str | None,
        request: Request,
        top_up: TopUpTerms | None = None,
        charged_to: str | None = None,
    ) -> Payment:
        """Begin a payment: of a payer, who may switch auto top-up on with it, or with the card of another.

        Raises:
            InvalidInput: there is nothing to pay, or more than `AMOUNT_MINOR_MAX`.
        """
        if not 1 <= terms.total_minor <= AMOUNT_MINOR_MAX:
            raise InvalidInput("amount_minor", f"a payment is of 1 to {AMOUNT_MINOR_MAX:,} minor units")
        payment = cls(payment_stream(payment_id))
        payment._record(
            PaymentRequested(
                request.at,
                request.actor,
                request.cause,
                organisation_id,
                payment_id,
                terms.kind,
                gateway,
                terms.credits,
                terms.unit_price_millionths,
                terms.credits_minor,
                terms.fee_minor,
                terms.amount_minor,
                terms.tax_minor,
                terms.currency,
                terms.price_version,
                quote_id,
                top_up,
                charged_to,
            )
        )
        return payment

    def order(self, order_id: str, request: Request) -> None:
        """Take in the order that the gateway has opened: a repeat, or a late word of it, changes nothing."""
        if self.status is PaymentStatus.CREATED:
            self._record(PaymentOrdered(*self._head(request), self.terms.gateway, order_id))

    def learn(self, attempt: Attempt, request: Request) -> bool:
        """Take in what the gateway says of an attempt at paying, whatever was heard before.

        Returns:
            Whether the attempt pays for the order: then `complete` is next, with what it brings about.
        """
        if self._took_otherwise(attempt):
            self.flag(Flag.AMOUNT_DIFFERS, attempt, request)
            self._end(PaymentFailed, Flag.AMOUNT_DIFFERS.value, request)
        elif attempt.status is AttemptStatus.CAPTURED:
            if self.gateway_payment_id is None:
                return True
            if self.gateway_payment_id != attempt.gateway_payment_id:
                self.flag(Flag.PAID_TWICE, attempt, request)
            elif attempt.refunded_minor > self._asked_back_minor():
                self.flag(Flag.REFUND_UNKNOWN, attempt, request, amount_minor=attempt.refunded_minor)
        elif attempt.status is AttemptStatus.FAILED:
            self._end(PaymentFailed, attempt.reason or "failed", request)
        elif attempt.status is AttemptStatus.CANCELLED:
            self._end(PaymentAbandoned, attempt.reason or CANCELLED, request)
        return False

    def complete(self, gateway_payment_id: str, purchase: int | None, request: Request) -> None:
        """Close the payment as paid: `purchase` is the version of the event that adds its credits.

        Raises:
            InvariantBroken: it is paid already.
        """
        if self.gateway_payment_id is not None:
            raise InvariantBroken(f"payment {self.terms.payment_id} is paid already")
        self._record(PaymentCompleted(*self._head(request), gateway_payment_id, purchase))

    def flag(
        self, flag: Flag, attempt: Attempt, request: Request, *, amount_minor: int | None = None
    ) -> None:
        """Have somebody look at what an attempt moved, once for the same thing."""
        amount_minor = attempt.amount_minor if amount_minor is None else amount_minor
        self._flag(flag, attempt.gateway_payment_id, amount_minor, attempt.currency, request)

    def fail(self, reason: str, request: Request) -> None:
        """Give up an order that the gateway would not open."""
        self._end(PaymentFailed, reason, request)

    def abandon(self, reason: str, request: Request) -> None:
        """Give up waiting; asked again, this changes nothing.

        Raises:
            PaymentClosed: it is paid, or has failed.
        """
        if self.status in UNPAID:
            self._end(PaymentAbandoned, reason, request)
        elif self.status is not PaymentStatus.ABANDONED:
            raise PaymentClosed(f"the payment has {self.status.value}", status=self.status.value)

    def request_refund(self, refund_id: str, credits_count: int, request: Request) -> PaymentRefundRequested:
        """Have money go back for some of the credits bought, at the price they were bought for.

        Refunds together give back exactly what all of the credits cost, tax included; a plan's fee stays.

        Raises:
            InvalidInput: credits below 1.
            PaymentNotRefundable: it bought no credits, or is not paid.
            RefundExceedsPurchase: more credits than it bought, less those that went back.
        """
        self.refundable_purchase()
        if credits_count < 1:
            raise InvalidInput("credits", "a refund takes back at least 1 credit")
        if credits_count > self.refundable_credits:
            raise RefundExceedsPurchase(
                f"{self.refundable_credits:,} of the credits bought can still be taken back",
                refundable=self.refundable_credits,
            )
        terms, taken = self.terms, self._taken_back()
        credits_then = sum(asked.credits for asked in taken) + credits_count
        tax_of_credits = terms.tax_minor * terms.credits_minor // terms.amount_minor
        asked = PaymentRefundRequested(
            *self._head(request),
            refund_id,
            credits_count,
            terms.credits_minor * credits_then // terms.credits - sum(each.amount_minor for each in taken),
            tax_of_credits * credits_then // terms.credits - sum(each.tax_minor for each in taken),
        )
        self._record(asked)
        return asked

    def refunded(self, refund_id: str, gateway_refund_id: str, request: Request) -> None:
        """Take in that money went back; a repeat changes nothing."""
        refund = self.refunds[refund_id]
        if refund.went_back is None:
            asked = refund.asked
            self._record(
                PaymentRefunded(
                    *self._head(request), refund_id, gateway_refund_id, asked.credits, asked.total_minor
                )
            )

    def refuse_refund(self, refund_id: str, reason: str, request: Request) -> bool:
        """Take in that the gateway will not give the money back, and tell whether this is news."""
        refund = self.refunds[refund_id]
        if refund.went_back is not None:
            return False
        self._record(PaymentRefundFailed(*self._head(request), refund_id, reason))
        self._flag(
            Flag.REFUND_REFUSED,
            self.gateway_payment_id or "",
            refund.asked.total_minor,
            self.terms.currency,
            request,
        )
        return True

    # ----------------------------------------------------------------- state

    def refundable_purchase(self) -> int:
        """Return the version of the event that added the credits.

        Raises:
            PaymentNotRefundable: it bought no credits, or is not paid.
        """
        if self.purchase is None:
            raise PaymentNotRefundable(payment_id=self.terms.payment_id)
        return self.purchase

    @property
    def refundable_credits(self) -> int:
        """Credits bought that no refund has taken back."""
        return self.terms.credits - sum(asked.credits for asked in self._taken_back())

    @property
    def open_refunds(self) -> list[PaymentRefundRequested]:
        """Refunds that the gateway has not answered yet."""
        return [refund.asked for refund in self.refunds.values() if refund.went_back is None]

    def check_invariants(self) -> None:
        """Check the state.

        Raises:
            InvariantBroken: it is paid and nobody paid it, or more went back than was paid.
        """
        if (self.status in PAID) != (self.gateway_payment_id is not None):
            raise InvariantBroken(f"payment {self.id} is {self.status}, paid by {self.gateway_payment_id}")
        taken = self._taken_back()
        if any(
            sum(getattr(asked, part) for asked in taken) > getattr(self.terms, part)
            for part in ("credits", "amount_minor", "tax_minor")
        ):
            raise InvariantBroken(f"more than all of payment {self.id} went back")

    def open_refund(self, asked: PaymentRefundRequested) -> None:
        """Remember money that is on its way back."""
        self.refunds[asked.refund_id] = RefundOfPayment(asked)

    def close_refund(self, refund_id: str, *, went_back: bool) -> None:
        """Remember what has become of a refund."""
        self.refunds[refund_id] = RefundOfPayment(self.refunds[refund_id].asked, went_back)

    def _took_otherwise(self, attempt: Attempt) -> bool:
        owed = (self.terms.total_minor, self.terms.currency.value)
        return (
            attempt.status is AttemptStatus.CAPTURED
            and (attempt.amount_minor, attempt.currency) != owed
            and attempt.gateway_payment_id != self.gateway_payment_id
        )

    def _taken_back(self) -> list[PaymentRefundRequested]:
        """Return the refunds that took credits: under way, or done."""
        return [refund.asked for refund in self.refunds.values() if refund.went_back is not False]

    def _asked_back_minor(self) -> int:
        return sum(asked.total_minor for asked in self._taken_back())

    def _end(
        self, ending: type[PaymentFailed] | type[PaymentAbandoned], reason: str, request: Request
    ) -> None:
        """Close a payment that nobody has paid; what has ended, or was paid, stays as it is."""
        if self.status in UNPAID:
            self._record(ending(*self._head(request), reason))

    def _flag(
        self, flag: Flag, gateway_payment_id: str, amount_minor: int, currency: str, request: Request
    ) -> None:
        if (flag, gateway_payment_id, amount_minor) not in self.flags:
            self._record(
                PaymentFlagged(*self._head(request), flag, gateway_payment_id, amount_minor, currency)
            )

    def _head(self, request: Request) -> _Head:
        terms = self.terms
        return (request.at, request.actor, request.cause, terms.organisation_id, terms.payment_id)


def evolve(payment: Payment | None, event: Event) -> Payment:
    """Return the payment after an event; None stands before its first one."""
    return event.mutate(payment or Payment(event.originator_id))
