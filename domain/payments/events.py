"""The events of a payment.

The gateway makes `order_id` and the ids named `gateway_...`; the ledger makes `payment_id` and `refund_id`.
Amounts are in minor units of the currency. Free text about a payment is stored outside the log, where it can
be erased.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from domain.credits.auto_top_up import TopUpTerms
from domain.shared.aggregate import EventHeader
from domain.shared.money import Currency


class PaymentKind(StrEnum):
    """What is paid for."""

    CREDITS = "credits"
    PRO = "pro"
    """The subscription, with or without more credits."""
    CUSTOM = "custom"
    """An amount that was agreed on, with a remark; adds no credits."""


class PaymentStatus(StrEnum):
    """The state of a payment."""

    CREATED = "created"
    """Requested; the gateway has no order yet."""
    PENDING = "pending"
    """The gateway has an order, and has not reported that it is paid."""
    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"
    REFUNDED = "refunded"
    """Money was refunded, in full or in part."""


class Flag(StrEnum):
    """Why a person has to check a payment: the money that moved does not fit the order."""

    AMOUNT_DIFFERS = "amount_differs"
    """An attempt took another amount or another currency than the order's."""
    PAID_TWICE = "paid_twice"
    """A second attempt of the order took money too."""
    ALREADY_PRO = "already_pro"
    """The subscription was paid, but the organisation had one already."""
    CREDITS_RECORDED_BEFORE = "credits_recorded_before"
    """The credits of this payment were recorded by hand before, so the payment added none."""
    REFUND_UNKNOWN = "refund_unknown"
    """The gateway refunded more than the ledger requested."""
    REFUND_REFUSED = "refund_refused"
    """The gateway refused a refund. The credits or the plan that were taken for it are restored."""


REFUNDABLE_FLAGS: Final = frozenset({Flag.AMOUNT_DIFFERS, Flag.PAID_TWICE})
"""The money of an attempt with such a flag paid for nothing: all of it can be refunded."""


class FlagKey(NamedTuple):
    """The fields that identify a flag. A payment has at most one flag with the same key."""

    flag: Flag
    gateway_payment_id: str
    amount_minor: int


class _PaymentEvent(EventHeader, frozen=True):
    organisation_id: str
    payment_id: str


class PaymentRequested(_PaymentEvent, frozen=True):
    """A payment was requested. `credits` include those that come with a subscription.

    `amount_minor` = `credits_minor` + `fee_minor`, without tax. `quote_id` is the quote that is paid. When
    the payment is completed, auto top-up is switched on with the terms `top_up`. If `card_payment_id` is set,
    the card of that payment is charged, and no payer comes to the gateway's page.
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
        """What the payer pays, tax included."""
        return self.amount_minor + self.tax_minor


class PaymentOrdered(_PaymentEvent, frozen=True):
    """The gateway opened an order."""

    gateway: str
    order_id: str


class PaymentCompleted(_PaymentEvent, frozen=True):
    """The money was taken. `purchase` is the version of the event that added the credits, if any."""

    gateway_payment_id: str
    purchase: int | None


class PaymentFailed(_PaymentEvent, frozen=True):
    """The payment failed; `reason` is the gateway's own code. A later attempt may still complete it."""

    reason: str


class PaymentAbandoned(_PaymentEvent, frozen=True):
    """The payer cancelled, or did not pay in time. A later attempt may still complete the payment."""

    reason: str


class PaymentFlagged(_PaymentEvent, frozen=True):
    """A person has to check the payment: why, and which amount of which attempt."""

    flag: Flag
    gateway_payment_id: str
    amount_minor: int
    currency: str

    @property
    def key(self) -> FlagKey:
        """The identity of the flag."""
        return FlagKey(self.flag, self.gateway_payment_id, self.amount_minor)


class PaymentFlagSettled(_PaymentEvent, frozen=True):
    """A flag was settled: by a person, or by the refund `refund_id`.

    The person's note is stored outside the log.
    """

    flag: Flag
    gateway_payment_id: str
    amount_minor: int
    refund_id: str | None = None

    @property
    def key(self) -> FlagKey:
        """The identity of the flag."""
        return FlagKey(self.flag, self.gateway_payment_id, self.amount_minor)


class PaymentRefundRequested(_PaymentEvent, frozen=True):
    """A refund was requested. What the money had bought was taken in the same append.

    `amount_minor` is without tax.
    With `credits` 0 it is a refund of the fee. `pro_until` is the end that the subscription had, if the
    refund ended it.
    """

    refund_id: str
    credits: int
    amount_minor: int
    tax_minor: int
    pro_until: datetime | None = None

    @property
    def total_minor(self) -> int:
        """What the payer gets back, tax included."""
        return self.amount_minor + self.tax_minor


class PaymentRefunded(_PaymentEvent, frozen=True):
    """The gateway gave the money back. Credits and total are those of the request."""

    refund_id: str
    gateway_refund_id: str
    credits: int = 0
    total_minor: int = 0


class PaymentRefundFailed(_PaymentEvent, frozen=True):
    """The gateway refused a refund; `reason` is its own code. The same append restores what was taken."""

    refund_id: str
    reason: str


class AttemptRefundRequested(_PaymentEvent, frozen=True):
    """A refund of all the money of an attempt was requested: it paid for nothing. No tax is in it."""

    refund_id: str
    gateway_payment_id: str
    amount_minor: int
    currency: str

    @property
    def total_minor(self) -> int:
        """What the payer gets back, tax included."""
        return self.amount_minor


class AttemptRefunded(_PaymentEvent, frozen=True):
    """The gateway gave back what an attempt took. The status of the payment stays."""

    refund_id: str
    gateway_refund_id: str
    gateway_payment_id: str
    amount_minor: int
    currency: str


class AttemptRefundFailed(_PaymentEvent, frozen=True):
    """The gateway refused to give back what an attempt took; `reason` is its own code."""

    refund_id: str
    reason: str


RefundRequested = PaymentRefundRequested | AttemptRefundRequested
"""A refund that was requested."""
