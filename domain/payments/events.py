"""The facts of a payment's history, and how each one changes it.

Ids named `gateway_...` and `order_id` are the gateway's own; `payment_id` and `refund_id` are ours. Amounts
are in minor units of the currency. Free text about a payment is kept beside the log, where it can be erased.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import msgspec

from domain.credits.auto_top_up import TopUpTerms
from domain.shared.money import Currency

if TYPE_CHECKING:
    from domain.payments.payment import Payment


class PaymentKind(StrEnum):
    """What is paid for."""

    CREDITS = "credits"
    PRO = "pro"
    """The subscription, with or without credits beside it."""
    CUSTOM = "custom"
    """An amount that is agreed on, with a remark; adds no credits."""


class PaymentStatus(StrEnum):
    """Where a payment stands."""

    CREATED = "created"
    """Asked for; the gateway has no order yet."""
    PENDING = "pending"
    """The gateway has an order, and nobody has paid it yet, as far as is known."""
    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"
    REFUNDED = "refunded"
    """Money went back, in full or in part."""


class Flag(StrEnum):
    """Why somebody has to look at a payment: money moved otherwise than the order says."""

    AMOUNT_DIFFERS = "amount_differs"
    """An attempt took another amount, or another currency, than the order's."""
    PAID_TWICE = "paid_twice"
    """A second attempt of the order took money too."""
    ALREADY_PRO = "already_pro"
    """The subscription was paid for, and the organisation had one already."""
    CREDITS_RECORDED_BEFORE = "credits_recorded_before"
    """The credits of this payment were recorded by hand: it added none."""
    REFUND_UNKNOWN = "refund_unknown"
    """The gateway gave back more than the ledger asked it to."""
    REFUND_REFUSED = "refund_refused"
    """The gateway would not give the money back; what was taken for it is back instead."""


REFUNDABLE_FLAGS: Final = frozenset({Flag.AMOUNT_DIFFERS, Flag.PAID_TWICE})
"""The money of such an attempt pays for nothing: all of it can go back."""


class FlagKey(NamedTuple):
    """What a flag is about: raised once for the same thing."""

    flag: Flag
    gateway_payment_id: str
    amount_minor: int


class _PaymentEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    recorded_at: datetime
    actor: str | None
    cause: str
    organisation_id: str
    payment_id: str

    balance_delta: ClassVar[int] = 0


class PaymentRequested(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """Somebody wants to pay: what for, and how much. Credits include those that come with a subscription.

    `amount_minor` = `credits_minor` + `fee_minor`; tax comes on top. `quote_id` is what it was made from.
    `top_up` is switched on when it is paid, with the payer's card; `card_payment_id` is the payment whose card is
    charged, where nobody is there to pay.
    """

    kind: PaymentKind
    gateway: str
    credits: int
    unit_price_millionths: int
    credits_minor: int
    fee_minor: int
    amount_minor: int
    tax_minor: int
    currency: Currency
    price_version: str
    quote_id: str | None
    top_up: TopUpTerms | None = None
    card_payment_id: str | None = None

    @property
    def total_minor(self) -> int:
        """What the payer pays."""
        return self.amount_minor + self.tax_minor

    def apply(self, payment: Payment) -> None:
        payment.terms = self
        payment.status = PaymentStatus.CREATED


class PaymentOrdered(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """The gateway has an order to be paid."""

    gateway: str
    order_id: str

    def apply(self, payment: Payment) -> None:
        payment.order_id = self.order_id
        payment.status = PaymentStatus.PENDING


class PaymentCompleted(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """The money is taken. `purchase` is the version of the event that added the credits, None without."""

    gateway_payment_id: str
    purchase: int | None

    def apply(self, payment: Payment) -> None:
        payment.gateway_payment_id = self.gateway_payment_id
        payment.purchase = self.purchase
        payment.completed_at = self.recorded_at
        payment.status = PaymentStatus.COMPLETED


class PaymentFailed(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """The gateway refused, in its own word for why. A later attempt may still complete the payment."""

    reason: str

    def apply(self, payment: Payment) -> None:
        payment.status = PaymentStatus.FAILED


class PaymentAbandoned(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """The payer gave up, or never came. A later attempt may still complete the payment."""

    reason: str

    def apply(self, payment: Payment) -> None:
        payment.status = PaymentStatus.ABANDONED


class PaymentFlagged(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """Somebody has to look: what was moved, by which attempt, and why that is odd."""

    flag: Flag
    gateway_payment_id: str
    amount_minor: int
    currency: str

    @property
    def key(self) -> FlagKey:
        """What it is about."""
        return FlagKey(self.flag, self.gateway_payment_id, self.amount_minor)

    def apply(self, payment: Payment) -> None:
        payment.open_flag(self)


class PaymentFlagSettled(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """Nobody has to look any more: somebody dealt with it, or by `refund_id` the money went back.

    What they wrote about it is kept beside the log.
    """

    flag: Flag
    gateway_payment_id: str
    amount_minor: int
    refund_id: str | None = None

    @property
    def key(self) -> FlagKey:
        """What it is about."""
        return FlagKey(self.flag, self.gateway_payment_id, self.amount_minor)

    def apply(self, payment: Payment) -> None:
        payment.close_flag(self.key)


class PaymentRefundRequested(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """Money is to go back: what it had bought was taken in the same append. Tax comes on top of the amount.

    Without credits it is of a plan's fee, or of a custom payment. `pro_until` is when the subscription would
    have ended that this ended.
    """

    refund_id: str
    credits: int
    amount_minor: int
    tax_minor: int
    pro_until: datetime | None = None

    @property
    def total_minor(self) -> int:
        """What the payer gets back."""
        return self.amount_minor + self.tax_minor

    def apply(self, payment: Payment) -> None:
        payment.open_refund(self)


class PaymentRefunded(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """The gateway gave the money back: as much as was asked for, said again here."""

    refund_id: str
    gateway_refund_id: str
    credits: int = 0
    total_minor: int = 0

    def apply(self, payment: Payment) -> None:
        payment.close_refund(self.refund_id, succeeded=True)
        payment.status = PaymentStatus.REFUNDED


class PaymentRefundFailed(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """The gateway would not give the money back, in its own word for why; what was taken is back."""

    refund_id: str
    reason: str

    def apply(self, payment: Payment) -> None:
        payment.close_refund(self.refund_id, succeeded=False)


class AttemptRefundRequested(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """All that an attempt took is to go back: it paid for nothing. No tax is in it, as no invoice is."""

    refund_id: str
    gateway_payment_id: str
    amount_minor: int
    currency: str

    @property
    def total_minor(self) -> int:
        """What the payer gets back."""
        return self.amount_minor

    def apply(self, payment: Payment) -> None:
        payment.open_refund(self)


class AttemptRefunded(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """The gateway gave back what an attempt took. Where the payment stands is not touched by it."""

    refund_id: str
    gateway_refund_id: str
    gateway_payment_id: str
    amount_minor: int
    currency: str

    def apply(self, payment: Payment) -> None:
        payment.close_refund(self.refund_id, succeeded=True)


class AttemptRefundFailed(_PaymentEvent, frozen=True, array_like=True, gc=False):
    """The gateway would not give back what an attempt took, in its own word for why."""

    refund_id: str
    reason: str

    def apply(self, payment: Payment) -> None:
        payment.close_refund(self.refund_id, succeeded=False)


RefundRequested = PaymentRefundRequested | AttemptRefundRequested
"""Money that is to go back."""
