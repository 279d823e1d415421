"""The terms of a payment: what it buys, and for how much."""

from __future__ import annotations

import msgspec

from domain.payments.events import PaymentKind
from domain.shared.money import Currency


class PaymentTerms(msgspec.Struct, frozen=True):
    """What is to be paid, in minor units. `credits_minor` and `fee_minor` are without tax.

    `credits` are all that the payment adds; `price_version` is the edition of the price book that was used.
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
        """The amount without tax."""
        return self.credits_minor + self.fee_minor

    @property
    def total_minor(self) -> int:
        """What the payer pays, tax included."""
        return self.amount_minor + self.tax_minor
