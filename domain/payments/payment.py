"""The Payment aggregate: one per order at a gateway, from the wish to pay to the money that went back.

Money is never lost sight of: what an attempt took counts whenever it is heard of, in whatever order, and what
does not fit the order is flagged.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from domain.credits.auto_top_up import TopUpTerms
from domain.credits.errors import RefundExceedsPurchase
from domain.payments.errors import (
    FlagNotOpen,
    PaymentClosed,
    PaymentNotRefundable,
    RefundExceedsRefundableFee,
)
from domain.payments.events import (
    REFUNDABLE_FLAGS,
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
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentRefundRequested,
    PaymentRequested,
    PaymentStatus,
    RefundRequested,
)
from domain.payments.gateway import Attempt, AttemptStatus
from domain.payments.terms import PaymentTerms
from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.errors import InvalidInput, InvariantViolation
from domain.shared.money import AMOUNT_MINOR_MAX, Cost
from domain.shared.stream_keys import payment_stream

UNPAID_STATUSES: Final = frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING})
PAID_STATUSES: Final = frozenset({PaymentStatus.COMPLETED, PaymentStatus.REFUNDED})
_FLAGS_SETTLED_BY_FEE_REFUND: Final = frozenset({Flag.ALREADY_PRO, Flag.CREDITS_RECORDED_BEFORE})
"""What is settled when all that was paid for no credits is back."""
CANCELLED_BY_CUSTOMER: Final = "CUSTOMER_CANCELLED"
"""Why a payment is abandoned where the gateway has no word of its own for it."""


_EventHeader = tuple[datetime, str | None, str, str, str]
"""What every fact of a payment begins with."""


class RefundState(msgspec.Struct, frozen=True):
    """Money on its way back (`succeeded` is None), or gone back, or not."""

    requested_refund: RefundRequested
    succeeded: bool | None = None


class Payment(Aggregate, begins_with=(PaymentRequested,)):
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
        self.refunds: dict[str, RefundState] = {}

    # ----------------------------------------------------------------- decisions

    @classmethod
    def request(
        cls,
        payment_id: str,
        organisation_id: str,
        terms: PaymentTerms,
        *,
        gateway: str,
        quote_id: str | None,
        context: CommandContext,
        top_up: TopUpTerms | None = None,
        card_payment_id: str | None = None,
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
                context.at,
                context.actor,
                context.cause,
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
                card_payment_id,
            )
        )
        return payment

    def record_order(self, order_id: str, context: CommandContext) -> None:
        """Take in the order that the gateway has opened: a repeat, or a late word of it, changes nothing."""
        if self.status is PaymentStatus.CREATED:
            self._record(PaymentOrdered(*self._event_header(context), self.terms.gateway, order_id))

    def record_attempt(self, attempt: Attempt, context: CommandContext) -> bool:
        """Take in what the gateway says of an attempt at paying, whatever was heard before.

        Returns:
            Whether the attempt pays for the order: then `complete` is next, with what it brings about.
        """
        if attempt.gateway_payment_id in self._refunded_attempts():
            return False  # money that we give back pays for nothing, whatever is told of it later
        if self._captured_other_amount(attempt):
            self.flag(Flag.AMOUNT_DIFFERS, attempt, context)
            self._close_unpaid(PaymentFailed, Flag.AMOUNT_DIFFERS.value, context)
        elif attempt.status is AttemptStatus.CAPTURED:
            if self.gateway_payment_id is None:
                return True
            if self.gateway_payment_id != attempt.gateway_payment_id:
                self.flag(Flag.PAID_TWICE, attempt, context)
            else:
                self._flag_unrequested_refund(attempt, context)
        elif attempt.status is AttemptStatus.FAILED:
            self._close_unpaid(PaymentFailed, attempt.reason or "failed", context)
        elif attempt.status is AttemptStatus.CANCELLED:
            self._close_unpaid(PaymentAbandoned, attempt.reason or CANCELLED_BY_CUSTOMER, context)
        return False

    def complete(self, gateway_payment_id: str, purchase: int | None, context: CommandContext) -> None:
        """Close the payment as paid: `purchase` is the version of the event that adds its credits.

        Raises:
            InvariantViolation: it is paid already.
        """
        if self.gateway_payment_id is not None:
            raise InvariantViolation(f"payment {self.terms.payment_id} is paid already")
        self._record(PaymentCompleted(*self._event_header(context), gateway_payment_id, purchase))

    def flag(
        self, flag: Flag, attempt: Attempt, context: CommandContext, *, amount_minor: int | None = None
    ) -> None:
        """Have somebody look at what an attempt moved, once for the same thing."""
        amount_minor = attempt.amount_minor if amount_minor is None else amount_minor
        self._flag(flag, attempt.gateway_payment_id, amount_minor, attempt.currency, context)

    def fail(self, reason: str, context: CommandContext) -> None:
        """Give up an order that the gateway would not open."""
        self._close_unpaid(PaymentFailed, reason, context)

    def abandon(self, reason: str, context: CommandContext) -> None:
        """Give up waiting; asked again, this changes nothing.

        Raises:
            PaymentClosed: it is paid, or has failed.
        """
        if self.status in UNPAID_STATUSES:
            self._close_unpaid(PaymentAbandoned, reason, context)
        elif self.status is not PaymentStatus.ABANDONED:
            raise PaymentClosed(f"the payment has {self.status.value}", status=self.status.value)

    def request_refund(
        self, refund_id: str, credits_count: int, context: CommandContext
    ) -> PaymentRefundRequested:
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
        taken = [
            requested_refund for requested_refund in self._purchase_refunds() if requested_refund.credits
        ]
        credits_then = sum(requested_refund.credits for requested_refund in taken) + credits_count
        requested_refund = PaymentRefundRequested(
            *self._event_header(context),
            refund_id,
            credits_count,
            _next_share(
                terms.credits_minor, credits_then, terms.credits, [each.amount_minor for each in taken]
            ),
            _next_share(
                self._tax_of_credits, credits_then, terms.credits, [each.tax_minor for each in taken]
            ),
        )
        self._record(requested_refund)
        return requested_refund

    def request_fee_refund(
        self, refund_id: str, amount_minor: int, context: CommandContext, *, pro_until: datetime | None = None
    ) -> PaymentRefundRequested:
        """Have money go back that bought no credits: of a plan's fee, or of a custom payment.

        The amount is without tax, whose share goes with it; refunds together give back exactly all of it.
        `pro_until` is the end of the subscription that is ended by it.

        Raises:
            InvalidInput: amount below 1.
            PaymentNotRefundable: it is not paid, or bought credits alone.
            RefundExceedsRefundableFee: more than was paid for no credits, less what went back.
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
            raise RefundExceedsRefundableFee(
                f"{self.refundable_fee_minor:,} minor units can still go back, tax not counted",
                refundable_minor=self.refundable_fee_minor,
            )
        taken = [
            requested_refund for requested_refund in self._purchase_refunds() if not requested_refund.credits
        ]
        amount_then = sum(requested_refund.amount_minor for requested_refund in taken) + amount_minor
        tax_minor = _next_share(
            fee.tax_minor, amount_then, fee.amount_minor, [each.tax_minor for each in taken]
        )
        requested_refund = PaymentRefundRequested(
            *self._event_header(context), refund_id, 0, amount_minor, tax_minor, pro_until
        )
        self._record(requested_refund)
        return requested_refund

    def request_attempt_refund(
        self, refund_id: str, gateway_payment_id: str, context: CommandContext
    ) -> AttemptRefundRequested:
        """Have all go back that an attempt took which pays for nothing, as an open flag of it says.

        Raises:
            PaymentNotRefundable: there is no such flag, the attempt is what paid, or its money is on its way.
        """
        odd = [
            flagged
            for key, flagged in self.flags.items()
            if key.gateway_payment_id == gateway_payment_id and self.is_refundable(key)
        ]
        if not odd:
            raise PaymentNotRefundable(
                "no attempt of this id took money that waits to go back",
                payment_id=self.terms.payment_id,
                gateway_payment_id=gateway_payment_id,
            )
        told = odd[-1]
        requested_refund = AttemptRefundRequested(
            *self._event_header(context), refund_id, gateway_payment_id, told.amount_minor, told.currency
        )
        self._record(requested_refund)
        return requested_refund

    def record_refund(self, refund_id: str, gateway_refund_id: str, context: CommandContext) -> None:
        """Take in that money went back, and settle what was flagged of it; a repeat changes nothing."""
        refund = self.refunds[refund_id]
        if refund.succeeded is not None:
            return
        requested_refund, head = refund.requested_refund, self._event_header(context)
        if isinstance(requested_refund, AttemptRefundRequested):
            moved = (
                requested_refund.gateway_payment_id,
                requested_refund.amount_minor,
                requested_refund.currency,
            )
            self._record(AttemptRefunded(*head, refund_id, gateway_refund_id, *moved))
        else:
            self._record(
                PaymentRefunded(
                    *head,
                    refund_id,
                    gateway_refund_id,
                    requested_refund.credits,
                    requested_refund.total_minor,
                )
            )
        for key in sorted(self.open_flags):
            if self._is_settled_by_refund(key, requested_refund):
                self._record(PaymentFlagSettled(*head, *key, refund_id))

    def record_refund_failure(self, refund_id: str, reason: str, context: CommandContext) -> bool:
        """Take in that the gateway will not give the money back, and tell whether this is news."""
        refund = self.refunds[refund_id]
        if refund.succeeded is not None:
            return False
        requested_refund, head = refund.requested_refund, self._event_header(context)
        if isinstance(requested_refund, AttemptRefundRequested):
            self._record(AttemptRefundFailed(*head, refund_id, reason))
        else:
            self._record(PaymentRefundFailed(*head, refund_id, reason))
        key = FlagKey(
            Flag.REFUND_REFUSED, self.gateway_payment_id_of(requested_refund), requested_refund.total_minor
        )
        if key not in self.open_flags:  # one that was settled before is open again
            self._record(PaymentFlagged(*head, *key, self.currency_of(requested_refund)))
        return True

    def settle_flag(self, key: FlagKey, context: CommandContext) -> None:
        """Record that somebody has dealt with what was flagged.

        Raises:
            FlagNotOpen: there is no such flag, it is settled, or its money is on its way back.
        """
        if key not in self.open_flags:
            raise FlagNotOpen(f"the payment has no open flag {key.flag.value} of this")
        if key.flag in REFUNDABLE_FLAGS and key.gateway_payment_id in self._refunded_attempts():
            raise FlagNotOpen("the money is on its way back: that settles the flag by itself")
        self._record(PaymentFlagSettled(*self._event_header(context), *key))

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
        return self.terms.credits - sum(
            requested_refund.credits for requested_refund in self._purchase_refunds()
        )

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
        given = sum(
            requested_refund.amount_minor
            for requested_refund in self._purchase_refunds()
            if not requested_refund.credits
        )
        return self.fee.amount_minor - given

    def is_refundable(self, key: FlagKey) -> bool:
        """Tell whether all can go back that the attempt of a flag took: it pays for nothing."""
        return (
            key in self.open_flags
            and key.flag in REFUNDABLE_FLAGS
            and key.gateway_payment_id not in {self.gateway_payment_id, *self._refunded_attempts()}
        )

    def gateway_payment_id_of(self, requested_refund: RefundRequested) -> str:
        """Return the gateway's id of what a refund gives money back of."""
        if isinstance(requested_refund, AttemptRefundRequested):
            return requested_refund.gateway_payment_id
        assert self.gateway_payment_id is not None
        return self.gateway_payment_id

    def currency_of(self, requested_refund: RefundRequested) -> str:
        """Return the currency of a refund: an attempt may have taken another than the order's."""
        return (
            requested_refund.currency
            if isinstance(requested_refund, AttemptRefundRequested)
            else self.terms.currency.value
        )

    @property
    def open_refunds(self) -> list[RefundRequested]:
        """Refunds that the gateway has not answered yet."""
        return [refund.requested_refund for refund in self.refunds.values() if refund.succeeded is None]

    def check_invariants(self) -> None:
        """Check the state.

        Raises:
            InvariantViolation: it is paid and nobody paid it, more went back than was paid, or money that
                went back is what paid it.
        """
        if (self.status in PAID_STATUSES) != (self.gateway_payment_id is not None):
            raise InvariantViolation(f"payment {self.id} is {self.status}, paid by {self.gateway_payment_id}")
        taken = self._purchase_refunds()
        if any(
            sum(getattr(requested_refund, part) for requested_refund in taken) > getattr(self.terms, part)
            for part in ("credits", "amount_minor", "tax_minor")
        ):
            raise InvariantViolation(f"more than all of payment {self.id} went back")
        if self.refundable_fee_minor < 0:
            raise InvariantViolation(f"more than the fee of payment {self.id} went back")
        refunded_attempts = self._refunded_attempts()
        if (
            len(refunded_attempts) > len(set(refunded_attempts))
            or self.gateway_payment_id in refunded_attempts
        ):
            raise InvariantViolation(f"an attempt of payment {self.id} went back twice, or paid")

    def open_flag(self, flagged: PaymentFlagged) -> None:
        """Remember why somebody has to look."""
        self.flags[flagged.key] = flagged
        self.open_flags.add(flagged.key)

    def close_flag(self, key: FlagKey) -> None:
        """Remember that nobody has to look any more."""
        self.open_flags.remove(key)

    def open_refund(self, requested_refund: RefundRequested) -> None:
        """Remember money that is on its way back."""
        self.refunds[requested_refund.refund_id] = RefundState(requested_refund)

    def close_refund(self, refund_id: str, *, succeeded: bool) -> None:
        """Remember what has become of a refund."""
        self.refunds[refund_id] = RefundState(self.refunds[refund_id].requested_refund, succeeded)

    def _captured_other_amount(self, attempt: Attempt) -> bool:
        owed = (self.terms.total_minor, self.terms.currency.value)
        return (
            attempt.status is AttemptStatus.CAPTURED
            and (attempt.amount_minor, attempt.currency) != owed
            and attempt.gateway_payment_id != self.gateway_payment_id
        )

    def _purchase_refunds(self) -> list[PaymentRefundRequested]:
        """Return the refunds of what was paid: under way, or done."""
        requested_refund = (
            refund.requested_refund for refund in self.refunds.values() if refund.succeeded is not False
        )
        return [each for each in requested_refund if isinstance(each, PaymentRefundRequested)]

    def _refunded_attempts(self) -> list[str]:
        """Return the attempts whose money is on its way back, or back."""
        requested_refund = (
            refund.requested_refund for refund in self.refunds.values() if refund.succeeded is not False
        )
        return [
            each.gateway_payment_id for each in requested_refund if isinstance(each, AttemptRefundRequested)
        ]

    @property
    def _tax_of_credits(self) -> int:
        return self.terms.tax_minor * self.terms.credits_minor // self.terms.amount_minor

    def _is_settled_by_refund(self, key: FlagKey, requested_refund: RefundRequested) -> bool:
        """Tell whether money that went back is what a flag waited for."""
        if key.gateway_payment_id != self.gateway_payment_id_of(requested_refund):
            return False
        if isinstance(requested_refund, AttemptRefundRequested):
            return key.flag in REFUNDABLE_FLAGS or key.flag is Flag.REFUND_REFUSED
        if key.flag is Flag.REFUND_REFUSED:
            return key.amount_minor == requested_refund.total_minor
        if key.flag not in _FLAGS_SETTLED_BY_FEE_REFUND or self.refundable_fee_minor > 0:
            return False
        return not any(isinstance(each, PaymentRefundRequested) for each in self.open_refunds)

    def _flag_unrequested_refund(self, attempt: Attempt, context: CommandContext) -> None:
        """Flag what went back of the money that paid and nobody asked for, in all, whenever it is more."""
        unasked = attempt.refunded_minor - sum(
            requested_refund.total_minor for requested_refund in self._purchase_refunds()
        )
        told = [
            key.amount_minor
            for key in self.flags
            if (key.flag, key.gateway_payment_id) == (Flag.REFUND_UNKNOWN, attempt.gateway_payment_id)
        ]
        if unasked > max(told, default=0):
            self.flag(Flag.REFUND_UNKNOWN, attempt, context, amount_minor=unasked)

    def _close_unpaid(
        self, ending: type[PaymentFailed] | type[PaymentAbandoned], reason: str, context: CommandContext
    ) -> None:
        """Close a payment that nobody has paid; what has ended, or was paid, stays as it is."""
        if self.status in UNPAID_STATUSES:
            self._record(ending(*self._event_header(context), reason))

    def _flag(
        self, flag: Flag, gateway_payment_id: str, amount_minor: int, currency: str, context: CommandContext
    ) -> None:
        key = FlagKey(flag, gateway_payment_id, amount_minor)
        if key not in self.flags:
            self._record(PaymentFlagged(*self._event_header(context), *key, currency))

    def _event_header(self, context: CommandContext) -> _EventHeader:
        terms = self.terms
        return (context.at, context.actor, context.cause, terms.organisation_id, terms.payment_id)


def _next_share(whole: int, parts_then: int, parts: int, before: list[int]) -> int:
    """Return what a refund adds to those before it, so that all of them are exactly the whole.

    Never less than nothing: one that was refused since may have had the smaller share of a fraction.
    """
    return max(0, whole * parts_then // parts - sum(before))


def evolve(payment: Payment | None, envelope: EventEnvelope) -> Payment:
    """Return the payment after an event; None stands before its first one."""
    return envelope.mutate(payment or Payment(envelope.originator_id))
