"""The state of a payment, and how each event changes it. Decisions are in `domain.payments.payment`."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from domain.payments.events import (
    REFUNDABLE_FLAGS,
    AttemptRefunded,
    AttemptRefundFailed,
    AttemptRefundRequested,
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
from domain.shared.aggregate import Aggregate
from domain.shared.errors import InvariantViolation
from domain.shared.money import Cost

UNPAID_STATUSES: Final = frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING})
PAID_STATUSES: Final = frozenset({PaymentStatus.COMPLETED, PaymentStatus.REFUNDED})


class RefundState(msgspec.Struct, frozen=True):
    """A refund that was requested. `succeeded` is None until the gateway has answered."""

    requested_refund: RefundRequested
    succeeded: bool | None = None


@dataclass(slots=True, repr=False)
class PaymentState(Aggregate):
    """What is known of a payment. `terms` say what is to be paid; they exist from the first event on."""

    stream: InitVar[UUID]
    terms: PaymentRequested = field(init=False)
    status: PaymentStatus = PaymentStatus.CREATED
    order_id: str | None = None
    gateway_payment_id: str | None = None
    """The attempt that paid."""
    purchase: int | None = None
    """The version of the organisation's event that added the credits."""
    completed_at: datetime | None = None
    flags: dict[FlagKey, PaymentFlagged] = field(default_factory=dict)
    open_flags: set[FlagKey] = field(default_factory=set)
    refunds: dict[str, RefundState] = field(default_factory=dict)

    def __post_init__(self, stream: UUID) -> None:
        Aggregate.__init__(self, stream)

    def check_invariants(self) -> None:
        """Check the state.

        Raises:
            InvariantViolation: the status does not fit the attempt that paid, or refunds exceed the payment,
                or an attempt was refunded twice, or the attempt that paid was refunded as an unused one.
        """
        if (self.status in PAID_STATUSES) != (self.gateway_payment_id is not None):
            raise InvariantViolation(f"payment {self.id} is {self.status}, paid by {self.gateway_payment_id}")
        refunds = self.purchase_refunds
        if any(
            sum(getattr(refund, part) for refund in refunds) > getattr(self.terms, part)
            for part in ("credits", "amount_minor", "tax_minor")
        ):
            raise InvariantViolation(f"more than all of payment {self.id} went back")
        if self.refundable_fee_minor < 0:
            raise InvariantViolation(f"more than the fee of payment {self.id} went back")
        attempts = self.refunded_attempts
        if len(attempts) > len(set(attempts)) or self.gateway_payment_id in attempts:
            raise InvariantViolation(f"an attempt of payment {self.id} went back twice, or paid")

    # ------------------------------------------------------------------------------ refunds

    @property
    def open_refunds(self) -> list[RefundRequested]:
        """Refunds that the gateway has not answered."""
        return [refund.requested_refund for refund in self.refunds.values() if refund.succeeded is None]

    @property
    def purchase_refunds(self) -> list[PaymentRefundRequested]:
        """Refunds of what was paid for: requested or done."""
        return [refund for refund in self._requested_or_done if isinstance(refund, PaymentRefundRequested)]

    @property
    def refunded_attempts(self) -> list[str]:
        """Attempts that paid for nothing and whose refund is requested or done."""
        return [
            refund.gateway_payment_id
            for refund in self._requested_or_done
            if isinstance(refund, AttemptRefundRequested)
        ]

    @property
    def refundable_credits(self) -> int:
        """Credits bought that no refund has taken back."""
        return self.terms.credits - sum(refund.credits for refund in self.purchase_refunds)

    @property
    def credits_tax_minor(self) -> int:
        """The part of the tax that belongs to the credits. The rest belongs to the fee."""
        return self.terms.tax_minor * self.terms.credits_minor // self.terms.amount_minor

    @property
    def fee(self) -> Cost:
        """What was paid for other things than credits, and its part of the tax; nothing before it is paid.

        It is the whole payment if the credits were recorded by hand before: the payment added none.
        """
        terms = self.terms
        if self.gateway_payment_id is None:
            return Cost(0, 0)
        if self.purchase is None:
            return Cost(terms.amount_minor, terms.tax_minor)
        return Cost(terms.fee_minor, terms.tax_minor - self.credits_tax_minor)

    @property
    def refundable_fee_minor(self) -> int:
        """The part of the fee that no refund has given back, without tax."""
        returned = sum(refund.amount_minor for refund in self.purchase_refunds if not refund.credits)
        return self.fee.amount_minor - returned

    def gateway_payment_id_of(self, refund: RefundRequested) -> str:
        """Return the gateway's id of the attempt that a refund gives money back of."""
        if isinstance(refund, AttemptRefundRequested):
            return refund.gateway_payment_id
        assert self.gateway_payment_id is not None
        return self.gateway_payment_id

    def currency_of(self, refund: RefundRequested) -> str:
        """Return the currency of a refund: an attempt can be in a different currency than the order."""
        return refund.currency if isinstance(refund, AttemptRefundRequested) else self.terms.currency.value

    def is_refundable(self, key: FlagKey) -> bool:
        """Tell whether all the money of a flagged attempt can be refunded, because it paid for nothing."""
        return (
            key in self.open_flags
            and key.flag in REFUNDABLE_FLAGS
            and key.gateway_payment_id not in {self.gateway_payment_id, *self.refunded_attempts}
        )

    @property
    def _requested_or_done(self) -> list[RefundRequested]:
        return [refund.requested_refund for refund in self.refunds.values() if refund.succeeded is not False]


def _requested(payment: PaymentState, event: PaymentRequested) -> None:
    payment.terms = event


def _ordered(payment: PaymentState, event: PaymentOrdered) -> None:
    payment.order_id = event.order_id
    payment.status = PaymentStatus.PENDING


def _completed(payment: PaymentState, event: PaymentCompleted) -> None:
    payment.gateway_payment_id = event.gateway_payment_id
    payment.purchase = event.purchase
    payment.completed_at = event.recorded_at
    payment.status = PaymentStatus.COMPLETED


def _failed(payment: PaymentState, _: PaymentFailed) -> None:
    payment.status = PaymentStatus.FAILED


def _abandoned(payment: PaymentState, _: PaymentAbandoned) -> None:
    payment.status = PaymentStatus.ABANDONED


def _flagged(payment: PaymentState, event: PaymentFlagged) -> None:
    payment.flags[event.key] = event
    payment.open_flags.add(event.key)


def _flag_settled(payment: PaymentState, event: PaymentFlagSettled) -> None:
    payment.open_flags.remove(event.key)


def _refund_requested(payment: PaymentState, event: RefundRequested) -> None:
    payment.refunds[event.refund_id] = RefundState(event)


def _refunded(payment: PaymentState, event: PaymentRefunded) -> None:
    _close_refund(payment, event.refund_id, succeeded=True)
    payment.status = PaymentStatus.REFUNDED


def _attempt_refunded(payment: PaymentState, event: AttemptRefunded) -> None:
    _close_refund(payment, event.refund_id, succeeded=True)


def _refund_failed(payment: PaymentState, event: PaymentRefundFailed | AttemptRefundFailed) -> None:
    _close_refund(payment, event.refund_id, succeeded=False)


def _close_refund(payment: PaymentState, refund_id: str, *, succeeded: bool) -> None:
    payment.refunds[refund_id] = RefundState(payment.refunds[refund_id].requested_refund, succeeded)


PaymentState.APPLY = {
    PaymentRequested: _requested,
    PaymentOrdered: _ordered,
    PaymentCompleted: _completed,
    PaymentFailed: _failed,
    PaymentAbandoned: _abandoned,
    PaymentFlagged: _flagged,
    PaymentFlagSettled: _flag_settled,
    PaymentRefundRequested: _refund_requested,
    PaymentRefunded: _refunded,
    PaymentRefundFailed: _refund_failed,
    AttemptRefundRequested: _refund_requested,
    AttemptRefunded: _attempt_refunded,
    AttemptRefundFailed: _refund_failed,
}
