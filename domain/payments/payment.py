"""The decisions of a payment, from its order at a gateway to its refunds. Its state is in `payment_state`.

Every amount that an attempt took is recorded. The gateway may report attempts in any order. Money that does
not fit the order is flagged.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

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
from domain.payments.payment_state import UNPAID_STATUSES, PaymentState
from domain.payments.terms import PaymentTerms
from domain.shared.aggregate import EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.errors import InvalidInput, InvariantViolation
from domain.shared.money import AMOUNT_MINOR_MAX
from domain.shared.stream_keys import payment_stream

_FLAGS_SETTLED_BY_FEE_REFUND: Final = frozenset({Flag.ALREADY_PRO, Flag.CREDITS_RECORDED_BEFORE})
"""These are settled when everything that was paid for other things than credits is refunded."""
CANCELLED_BY_CUSTOMER: Final = "CUSTOMER_CANCELLED"
"""The reason of an abandoned payment if the gateway gives none."""


class Payment(PaymentState, first_events=(PaymentRequested,)):
    """A payment that decides. Each decision checks the state, then records events."""

    __slots__ = ()

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
        """Begin a payment.

        Args:
            payment_id: our id of it.
            organisation_id: the organisation that pays.
            terms: what is to be paid.
            gateway: the name of the gateway.
            quote_id: the quote that is paid, if any.
            context: who asked for it, when, and why.
            top_up: auto top-up that is switched on when the payment is completed.
            card_payment_id: the payment whose card is charged; None if a payer comes to the gateway's page.

        Raises:
            InvalidInput: the total is not 1 to `AMOUNT_MINOR_MAX`.
        """
        if not 1 <= terms.total_minor <= AMOUNT_MINOR_MAX:
            raise InvalidInput("amount_minor", f"a payment is of 1 to {AMOUNT_MINOR_MAX:,} minor units")
        payment = cls(payment_stream(payment_id))
        payment._record(
            PaymentRequested(
                *context.event_header,
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
        """Record the order that the gateway opened. A repeat, or an order that comes late, is ignored."""
        if self.status is PaymentStatus.CREATED:
            self._record(PaymentOrdered(*self._event_header(context), self.terms.gateway, order_id))

    def record_attempt(self, attempt: Attempt, context: CommandContext) -> bool:
        """Record what the gateway reports about an attempt, also if it contradicts an earlier report.

        Returns:
            Whether the attempt pays for the order: then the caller calls `complete`.
        """
        if attempt.gateway_payment_id in self.refunded_attempts:
            return False  # its money is refunded, so later reports about it change nothing
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
        """Complete the payment. `purchase` is the version of the organisation's event that adds its credits.

        Raises:
            InvariantViolation: it is paid already.
        """
        if self.gateway_payment_id is not None:
            raise InvariantViolation(f"payment {self.terms.payment_id} is paid already")
        self._record(PaymentCompleted(*self._event_header(context), gateway_payment_id, purchase))

    def fail(self, reason: str, context: CommandContext) -> None:
        """Close an unpaid payment because the gateway refused its order or its charge."""
        self._close_unpaid(PaymentFailed, reason, context)

    def abandon(self, reason: str, context: CommandContext) -> None:
        """Abandon an unpaid payment. A repeat changes nothing.

        Raises:
            PaymentClosed: it is paid, or has failed.
        """
        if self.status in UNPAID_STATUSES:
            self._close_unpaid(PaymentAbandoned, reason, context)
        elif self.status is not PaymentStatus.ABANDONED:
            raise PaymentClosed(f"the payment has {self.status.value}", status=self.status.value)

    def flag(
        self, flag: Flag, attempt: Attempt, context: CommandContext, *, amount_minor: int | None = None
    ) -> None:
        """Flag what an attempt moved. A repeat changes nothing. Without an amount it is the attempt's."""
        amount_minor = attempt.amount_minor if amount_minor is None else amount_minor
        key = FlagKey(flag, attempt.gateway_payment_id, amount_minor)
        if key not in self.flags:
            self._record(PaymentFlagged(*self._event_header(context), *key, attempt.currency))

    def settle_flag(self, key: FlagKey, context: CommandContext) -> None:
        """Record that somebody has dealt with a flag.

        Raises:
            FlagNotOpen: there is no such flag, it is settled, or its money is on its way back.
        """
        if key not in self.open_flags:
            raise FlagNotOpen(f"the payment has no open flag {key.flag.value} of this")
        if key.flag in REFUNDABLE_FLAGS and key.gateway_payment_id in self.refunded_attempts:
            raise FlagNotOpen("the money is on its way back: that settles the flag by itself")
        self._record(PaymentFlagSettled(*self._event_header(context), *key))

    # ------------------------------------------------------------------------------ refunds

    def refundable_purchase(self) -> int:
        """Return the version of the organisation's event that added the credits.

        Raises:
            PaymentNotRefundable: it bought no credits, or is not paid.
        """
        if self.purchase is None:
            raise PaymentNotRefundable(payment_id=self.terms.payment_id)
        return self.purchase

    def request_refund(
        self, refund_id: str, credits_count: int, context: CommandContext
    ) -> PaymentRefundRequested:
        """Request a refund of some of the credits, at the price they were bought for. The fee stays.

        All refunds together give back exactly what all the credits cost, tax included.

        Raises:
            InvalidInput: less than 1 credit.
            PaymentNotRefundable: it bought no credits, or is not paid.
            RefundExceedsPurchase: more credits than it bought and no refund has taken back.
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
        before = [refund for refund in self.purchase_refunds if refund.credits]
        credits_then = sum(refund.credits for refund in before) + credits_count
        amounts_minor = [refund.amount_minor for refund in before]
        taxes_minor = [refund.tax_minor for refund in before]
        refund = PaymentRefundRequested(
            *self._event_header(context),
            refund_id,
            credits_count,
            _next_share(terms.credits_minor, credits_then, terms.credits, amounts_minor),
            _next_share(self.credits_tax_minor, credits_then, terms.credits, taxes_minor),
        )
        self._record(refund)
        return refund

    def request_fee_refund(
        self, refund_id: str, amount_minor: int, context: CommandContext, *, pro_until: datetime | None = None
    ) -> PaymentRefundRequested:
        """Request a refund of the fee: of Pro, or of a custom payment.

        The amount is without tax; its part of the tax is added. All refunds together give back exactly the
        fee and its tax. `pro_until` is the end of the subscription that the refund ends.

        Raises:
            InvalidInput: an amount below 1.
            PaymentNotRefundable: it is not paid, or bought credits only.
            RefundExceedsRefundableFee: more than the part of the fee that no refund has given back.
        """
        fee = self.fee
        if fee.amount_minor == 0:
            raise PaymentNotRefundable(
                "it is not paid, or bought credits alone: their money is refunded with the credits",
                payment_id=self.terms.payment_id,
            )
        if amount_minor < 1:
            raise InvalidInput("amount_minor", "a refund gives back at least 1 minor unit")
        if amount_minor > self.refundable_fee_minor:
            raise RefundExceedsRefundableFee(
                f"{self.refundable_fee_minor:,} minor units can still be refunded, without tax",
                refundable_minor=self.refundable_fee_minor,
            )
        before = [refund for refund in self.purchase_refunds if not refund.credits]
        amount_then = sum(refund.amount_minor for refund in before) + amount_minor
        taxes_minor = [refund.tax_minor for refund in before]
        tax_minor = _next_share(fee.tax_minor, amount_then, fee.amount_minor, taxes_minor)
        refund = PaymentRefundRequested(
            *self._event_header(context), refund_id, 0, amount_minor, tax_minor, pro_until
        )
        self._record(refund)
        return refund

    def request_attempt_refund(
        self, refund_id: str, gateway_payment_id: str, context: CommandContext
    ) -> AttemptRefundRequested:
        """Request a refund of everything that an attempt took, if an open flag says that it paid for nothing.

        Raises:
            PaymentNotRefundable: there is no such flag, the attempt paid, or its refund is requested already.
        """
        refundable = [
            flagged
            for key, flagged in self.flags.items()
            if key.gateway_payment_id == gateway_payment_id and self.is_refundable(key)
        ]
        if not refundable:
            raise PaymentNotRefundable(
                "no attempt with this id has money to refund",
                payment_id=self.terms.payment_id,
                gateway_payment_id=gateway_payment_id,
            )
        latest = refundable[-1]
        refund = AttemptRefundRequested(
            *self._event_header(context), refund_id, gateway_payment_id, latest.amount_minor, latest.currency
        )
        self._record(refund)
        return refund

    def record_refund(self, refund_id: str, gateway_refund_id: str, context: CommandContext) -> None:
        """Record that the gateway gave the money back, and settle its flags. A repeat changes nothing."""
        if self.refunds[refund_id].succeeded is not None:
            return
        refund, header = self.refunds[refund_id].requested_refund, self._event_header(context)
        if isinstance(refund, AttemptRefundRequested):
            moved = (refund.gateway_payment_id, refund.amount_minor, refund.currency)
            self._record(AttemptRefunded(*header, refund_id, gateway_refund_id, *moved))
        else:
            self._record(
                PaymentRefunded(*header, refund_id, gateway_refund_id, refund.credits, refund.total_minor)
            )
        for key in sorted(self.open_flags):
            if self._is_settled_by_refund(key, refund):
                self._record(PaymentFlagSettled(*header, *key, refund_id))

    def record_refund_failure(self, refund_id: str, reason: str, context: CommandContext) -> bool:
        """Record that the gateway refused a refund, and flag it. Tell whether this was not known before."""
        if self.refunds[refund_id].succeeded is not None:
            return False
        refund, header = self.refunds[refund_id].requested_refund, self._event_header(context)
        if isinstance(refund, AttemptRefundRequested):
            self._record(AttemptRefundFailed(*header, refund_id, reason))
        else:
            self._record(PaymentRefundFailed(*header, refund_id, reason))
        key = FlagKey(Flag.REFUND_REFUSED, self.gateway_payment_id_of(refund), refund.total_minor)
        if key not in self.open_flags:  # a flag that was settled before opens again
            self._record(PaymentFlagged(*header, *key, self.currency_of(refund)))
        return True

    # ------------------------------------------------------------------------------ parts of decisions

    def _captured_other_amount(self, attempt: Attempt) -> bool:
        owed = (self.terms.total_minor, self.terms.currency.value)
        return (
            attempt.status is AttemptStatus.CAPTURED
            and (attempt.amount_minor, attempt.currency) != owed
            and attempt.gateway_payment_id != self.gateway_payment_id
        )

    def _is_settled_by_refund(self, key: FlagKey, refund: RefundRequested) -> bool:
        """Tell whether a refund that is done settles a flag."""
        if key.gateway_payment_id != self.gateway_payment_id_of(refund):
            return False
        if isinstance(refund, AttemptRefundRequested):
            return key.flag in REFUNDABLE_FLAGS or key.flag is Flag.REFUND_REFUSED
        if key.flag is Flag.REFUND_REFUSED:
            return key.amount_minor == refund.total_minor
        if key.flag not in _FLAGS_SETTLED_BY_FEE_REFUND or self.refundable_fee_minor > 0:
            return False
        return not any(isinstance(each, PaymentRefundRequested) for each in self.open_refunds)

    def _flag_unrequested_refund(self, attempt: Attempt, context: CommandContext) -> None:
        """Flag the total that the gateway gave back without our request, each time that it has grown."""
        requested_minor = sum(refund.total_minor for refund in self.purchase_refunds)
        unrequested_minor = attempt.refunded_minor - requested_minor
        flagged_minor = [
            key.amount_minor
            for key in self.flags
            if (key.flag, key.gateway_payment_id) == (Flag.REFUND_UNKNOWN, attempt.gateway_payment_id)
        ]
        if unrequested_minor > max(flagged_minor, default=0):
            self.flag(Flag.REFUND_UNKNOWN, attempt, context, amount_minor=unrequested_minor)

    def _close_unpaid(
        self, event_type: type[PaymentFailed] | type[PaymentAbandoned], reason: str, context: CommandContext
    ) -> None:
        """Close a payment that is not paid. Does nothing if the payment is paid or closed."""
        if self.status in UNPAID_STATUSES:
            self._record(event_type(*self._event_header(context), reason))

    def _event_header(self, context: CommandContext) -> tuple[datetime, str | None, str, str, str]:
        """Return the first fields of every event of the payment."""
        return (*context.event_header, self.terms.organisation_id, self.terms.payment_id)


def evolve(payment: Payment | None, envelope: EventEnvelope) -> Payment:
    """Return the payment after an event; it is None before the first event."""
    return envelope.mutate(payment or Payment(envelope.originator_id))


def _next_share(whole: int, parts_then: int, parts: int, before: list[int]) -> int:
    """Return the share of a refund, so that all refunds together are exactly the whole.

    It is never negative: an earlier refund that failed may have had the smaller share of a fraction.
    """
    return max(0, whole * parts_then // parts - sum(before))
