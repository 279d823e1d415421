"""What a payment buys, and for how much."""

from __future__ import annotations

import msgspec

from domain.payments.events import (
    PaymentKind,
)
from domain.shared.money import Currency


class PaymentTerms(msgspec.Struct, frozen=True):
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
