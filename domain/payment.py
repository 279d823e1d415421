"""The Payment aggregate: one per order at a gateway, from the wish to pay to the money that went back.

Money is never lost sight of: what an attempt took counts whenever it is heard of, in whatever order, and what
does not fit the order is flagged.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import msgspec

from domain.aggregate import Aggregate
from domain.errors import InvariantBroken
from domain.payment_facts import Flag, PaymentRefundRequested, PaymentRequested, PaymentStatus

PAID: Final = frozenset({PaymentStatus.COMPLETED, PaymentStatus.REFUNDED})


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

    def check_invariants(self) -> None:
        """Check the state.

        Raises:
            InvariantBroken: it is paid and nobody paid it, or more went back than was paid.
        """
        if (self.status in PAID) != (self.gateway_payment_id is not None):
            raise InvariantBroken(f"payment {self.id} is {self.status}, paid by {self.gateway_payment_id}")
        taken = [refund.asked for refund in self.refunds.values() if refund.went_back is not False]
        if sum(asked.credits for asked in taken) > self.terms.credits or any(
            sum(getattr(asked, part) for asked in taken) > getattr(self.terms, part)
            for part in ("amount_minor", "tax_minor")
        ):
            raise InvariantBroken(f"more than all of payment {self.id} went back")

    def open_refund(self, asked: PaymentRefundRequested) -> None:
        """Remember money that is on its way back."""
        self.refunds[asked.refund_id] = RefundOfPayment(asked)

    def close_refund(self, refund_id: str, *, went_back: bool) -> None:
        """Remember what has become of a refund."""
        self.refunds[refund_id] = RefundOfPayment(self.refunds[refund_id].asked, went_back)
