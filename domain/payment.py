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
    FlagNotOpen,
    InvalidInput,
    InvariantBroken,
    PaymentClosed,
    PaymentNotRefundable,
    RefundExceedsPayment,
    RefundExceedsPurchase,
)
from domain.facts import Request
from domain.gateway import Attempt, AttemptStatus
from domain.identity import payment_stream
from domain.money import AMOUNT_MINOR_MAX, Cost, Currency
from domain.payment_facts import (
    BOUGHT_NOTHING,
    Asked,
    AttemptRefunded,
    AttemptRefundFailed,
    AttemptRefundRequested,
    Flag,
    FlagKey,
    PaymentAbandoned,
    PaymentCompleted,
    PaymentFailed,
    PaymentFlagged,
    PaymentFlagSettled,
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
_ENDED_BY_THE_FEE: Final = frozenset({Flag.ALREADY_PRO, Flag.CREDITS_RECORDED_BEFORE})
"""What is settled when all that was paid for no credits is back."""
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

    asked: Asked
    went_back: bool | None = None


class Payment(Aggregate):
    """What is known of a payment. `terms` say what was to be paid, and are there from the first event on."""

    __slots__ = (
        "completed_at",
        "flags",
        "gateway_payment_id",
        "open_flags",
        "order_id",
        "purchase",
        "refunds",
        "status",
        "terms",
    )

    terms: PaymentRequested

    def __init__(self, stream: UUID) -> None:
        super().__init__(stream)
        self.status = PaymentStatus.CREATED
        self.order_id: str | None = None
        self.gateway_payment_id: str | None = None
        self.purchase: int | None = None
        self.completed_at: datetime | None = None
        self.flags: dict[FlagKey, PaymentFlagged] = {}
        self.open_flags: set[FlagKey] = set()
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
        if attempt.gateway_payment_id in self._given_back():
            return False  # money that we give back pays for nothing, whatever is told of it later
        if self._took_otherwise(attempt):
            self.flag(Flag.AMOUNT_DIFFERS, attempt, request)
            self._end(PaymentFailed, Flag.AMOUNT_DIFFERS.value, request)
        elif attempt.status is AttemptStatus.CAPTURED:
            if self.gateway_payment_id is None:
                return True
            if self.gateway_payment_id != attempt.gateway_payment_id:
                self.flag(Flag.PAID_TWICE, attempt, request)
            else:
                self._flag_unasked_refund(attempt, request)
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
        terms = self.terms
        taken = [asked for asked in self._taken_back() if asked.credits]
        credits_then = sum(asked.credits for asked in taken) + credits_count
        asked = PaymentRefundRequested(
            *self._head(request),
            refund_id,
            credits_count,
            _part(terms.credits_minor, credits_then, terms.credits, [each.amount_minor for each in taken]),
            _part(self._tax_of_credits, credits_then, terms.credits, [each.tax_minor for each in taken]),
        )
        self._record(asked)
        return asked

    def request_fee_refund(
        self, refund_id: str, amount_minor: int, request: Request, *, pro_until: datetime | None = None
    ) -> PaymentRefundRequested:
        """Have money go back that bought no credits: of a plan's fee, or of a custom payment.

        The amount is without tax, whose share goes with it; refunds together give back exactly all of it.
        `pro_until` is the end of the subscription that is ended by it.

        Raises:
            InvalidInput: amount below 1.
            PaymentNotRefundable: it is not paid, or bought credits alone.
            RefundExceedsPayment: more than was paid for no credits, less what went back.
        """
        fee = self.fee
        if fee.amount_minor == 0:
            raise PaymentNotRefundable(
                "it is not paid, or bought credits alone: their money goes back with them",
                payment_id=self.terms.payment_id,
            )
        if amount_minor < 1:
            raise InvalidInput("amount_minor", "a refund gives back at least 1 minor unit")
        if amount_minor > self.refundable_fee_minor:
            raise RefundExceedsPayment(
                f"{self.refundable_fee_minor:,} minor units can still go back, tax not counted",
                refundable_minor=self.refundable_fee_minor,
            )
        taken = [asked for asked in self._taken_back() if not asked.credits]
        amount_then = sum(asked.amount_minor for asked in taken) + amount_minor
        tax_minor = _part(fee.tax_minor, amount_then, fee.amount_minor, [each.tax_minor for each in taken])
        asked = PaymentRefundRequested(*self._head(request), refund_id, 0, amount_minor, tax_minor, pro_until)
        self._record(asked)
        return asked

    def request_attempt_refund(
        self, refund_id: str, gateway_payment_id: str, request: Request
    ) -> AttemptRefundRequested:
        """Have all go back that an attempt took which pays for nothing, as an open flag of it says.

        Raises:
            PaymentNotRefundable: there is no such flag, the attempt is what paid, or its money is on its way.
        """
        odd = [
            flagged
            for key, flagged in self.flags.items()
            if key.gateway_payment_id == gateway_payment_id and self.gives_back(key)
        ]
        if not odd:
            raise PaymentNotRefundable(
                "no attempt of this id took money that waits to go back",
                payment_id=self.terms.payment_id,
                gateway_payment_id=gateway_payment_id,
            )
        told = odd[-1]
        asked = AttemptRefundRequested(
            *self._head(request), refund_id, gateway_payment_id, told.amount_minor, told.currency
        )
        self._record(asked)
        return asked

    def refunded(self, refund_id: str, gateway_refund_id: str, request: Request) -> None:
        """Take in that money went back, and settle what was flagged of it; a repeat changes nothing."""
        refund = self.refunds[refund_id]
        if refund.went_back is not None:
            return
        asked, head = refund.asked, self._head(request)
        if isinstance(asked, AttemptRefundRequested):
            moved = (asked.gateway_payment_id, asked.amount_minor, asked.currency)
            self._record(AttemptRefunded(*head, refund_id, gateway_refund_id, *moved))
        else:
            self._record(
                PaymentRefunded(*head, refund_id, gateway_refund_id, asked.credits, asked.total_minor)
            )
        for key in sorted(self.open_flags):
            if self._is_settled_by(key, asked):
                self._record(PaymentFlagSettled(*head, *key, refund_id))

    def refuse_refund(self, refund_id: str, reason: str, request: Request) -> bool:
        """Take in that the gateway will not give the money back, and tell whether this is news."""
        refund = self.refunds[refund_id]
        if refund.went_back is not None:
            return False
        asked, head = refund.asked, self._head(request)
        if isinstance(asked, AttemptRefundRequested):
            self._record(AttemptRefundFailed(*head, refund_id, reason))
        else:
            self._record(PaymentRefundFailed(*head, refund_id, reason))
        key = FlagKey(Flag.REFUND_REFUSED, self.attempt_of(asked), asked.total_minor)
        if key not in self.open_flags:  # one that was settled before is open again
            self._record(PaymentFlagged(*head, *key, self.currency_of(asked)))
        return True

    def settle_flag(self, key: FlagKey, request: Request) -> None:
        """Record that somebody has dealt with what was flagged.

        Raises:
            FlagNotOpen: there is no such flag, it is settled, or its money is on its way back.
        """
        if key not in self.open_flags:
            raise FlagNotOpen(f"the payment has no open flag {key.flag.value} of this")
        if key.flag in BOUGHT_NOTHING and key.gateway_payment_id in self._given_back():
            raise FlagNotOpen("the money is on its way back: that settles the flag by itself")
        self._record(PaymentFlagSettled(*self._head(request), *key))

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
    def fee(self) -> Cost:
        """What was paid for no credits of ours, and its share of the tax; nothing while it is not paid.

        It is all of a payment whose credits had been recorded by hand: they are not of its own purchase.
        """
        terms = self.terms
        if self.gateway_payment_id is None:
            return Cost(0, 0)
        if self.purchase is None:
            return Cost(terms.amount_minor, terms.tax_minor)
        return Cost(terms.fee_minor, terms.tax_minor - self._tax_of_credits)

    @property
    def refundable_fee_minor(self) -> int:
        """Of the fee, what no refund has given back; tax comes on top."""
        given = sum(asked.amount_minor for asked in self._taken_back() if not asked.credits)
        return self.fee.amount_minor - given

    def gives_back(self, key: FlagKey) -> bool:
        """Tell whether all can go back that the attempt of a flag took: it pays for nothing."""
        return (
            key in self.open_flags
            and key.flag in BOUGHT_NOTHING
            and key.gateway_payment_id not in {self.gateway_payment_id, *self._given_back()}
        )

    def attempt_of(self, asked: Asked) -> str:
        """Return the gateway's id of what a refund gives money back of."""
        if isinstance(asked, AttemptRefundRequested):
            return asked.gateway_payment_id
        assert self.gateway_payment_id is not None
        return self.gateway_payment_id

    def currency_of(self, asked: Asked) -> str:
        """Return the currency of a refund: an attempt may have taken another than the order's."""
        return asked.currency if isinstance(asked, AttemptRefundRequested) else self.terms.currency.value

    @property
    def open_refunds(self) -> list[Asked]:
        """Refunds that the gateway has not answered yet."""
        return [refund.asked for refund in self.refunds.values() if refund.went_back is None]

    def check_invariants(self) -> None:
        """Check the state.

        Raises:
            InvariantBroken: it is paid and nobody paid it, more went back than was paid, or money that
                went back is what paid it.
        """
        if (self.status in PAID) != (self.gateway_payment_id is not None):
            raise InvariantBroken(f"payment {self.id} is {self.status}, paid by {self.gateway_payment_id}")
        taken = self._taken_back()
        if any(
            sum(getattr(asked, part) for asked in taken) > getattr(self.terms, part)
            for part in ("credits", "amount_minor", "tax_minor")
        ):
            raise InvariantBroken(f"more than all of payment {self.id} went back")
        if self.refundable_fee_minor < 0:
            raise InvariantBroken(f"more than the fee of payment {self.id} went back")
        given_back = self._given_back()
        if len(given_back) > len(set(given_back)) or self.gateway_payment_id in given_back:
            raise InvariantBroken(f"an attempt of payment {self.id} went back twice, or paid")

    def open_flag(self, flagged: PaymentFlagged) -> None:
        """Remember why somebody has to look."""
        self.flags[flagged.key] = flagged
        self.open_flags.add(flagged.key)

    def close_flag(self, key: FlagKey) -> None:
        """Remember that nobody has to look any more."""
        self.open_flags.remove(key)

    def open_refund(self, asked: Asked) -> None:
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
        """Return the refunds of what was paid: under way, or done."""
        asked = (refund.asked for refund in self.refunds.values() if refund.went_back is not False)
        return [each for each in asked if isinstance(each, PaymentRefundRequested)]

    def _given_back(self) -> list[str]:
        """Return the attempts whose money is on its way back, or back."""
        asked = (refund.asked for refund in self.refunds.values() if refund.went_back is not False)
        return [each.gateway_payment_id for each in asked if isinstance(each, AttemptRefundRequested)]

    @property
    def _tax_of_credits(self) -> int:
        return self.terms.tax_minor * self.terms.credits_minor // self.terms.amount_minor

    def _is_settled_by(self, key: FlagKey, asked: Asked) -> bool:
        """Tell whether money that went back is what a flag waited for."""
        if key.gateway_payment_id != self.attempt_of(asked):
            return False
        if isinstance(asked, AttemptRefundRequested):
            return key.flag in BOUGHT_NOTHING or key.flag is Flag.REFUND_REFUSED
        if key.flag is Flag.REFUND_REFUSED:
            return key.amount_minor == asked.total_minor
        if key.flag not in _ENDED_BY_THE_FEE or self.refundable_fee_minor > 0:
            return False
        return not any(isinstance(each, PaymentRefundRequested) for each in self.open_refunds)

    def _flag_unasked_refund(self, attempt: Attempt, request: Request) -> None:
        """Flag what went back of the money that paid and nobody asked for, in all, whenever it is more."""
        unasked = attempt.refunded_minor - sum(asked.total_minor for asked in self._taken_back())
        told = [
            key.amount_minor
            for key in self.flags
            if (key.flag, key.gateway_payment_id) == (Flag.REFUND_UNKNOWN, attempt.gateway_payment_id)
        ]
        if unasked > max(told, default=0):
            self.flag(Flag.REFUND_UNKNOWN, attempt, request, amount_minor=unasked)

    def _end(
        self, ending: type[PaymentFailed] | type[PaymentAbandoned], reason: str, request: Request
    ) -> None:
        """Close a payment that nobody has paid; what has ended, or was paid, stays as it is."""
        if self.status in UNPAID:
            self._record(ending(*self._head(request), reason))

    def _flag(
        self, flag: Flag, gateway_payment_id: str, amount_minor: int, currency: str, request: Request
    ) -> None:
        key = FlagKey(flag, gateway_payment_id, amount_minor)
        if key not in self.flags:
            self._record(PaymentFlagged(*self._head(request), *key, currency))

    def _head(self, request: Request) -> _Head:
        terms = self.terms
        return (request.at, request.actor, request.cause, terms.organisation_id, terms.payment_id)


def _part(whole: int, parts_then: int, parts: int, before: list[int]) -> int:
    """Return what a refund adds to those before it, so that all of them are exactly the whole.

    Never less than nothing: one that was refused since may have had the smaller share of a fraction.
    """
    return max(0, whole * parts_then // parts - sum(before))


def evolve(payment: Payment | None, event: Event) -> Payment:
    """Return the payment after an event; None stands before its first one."""
    return event.mutate(payment or Payment(event.originator_id))
