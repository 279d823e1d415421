"""Goods and Services Tax: which taxes the tax of a payment is made of, and where a sale takes place.

Within the seller's own state the tax is half central (CGST) and half state tax (SGST, or UTGST in a union
territory without a legislature); anywhere else it is integrated tax (IGST): Integrated Goods and Services Tax
Act, 2017, sections 7, 8 and 12. Exports carry none (section 16).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from domain.errors import InvalidInput
from domain.money import divide_half_up
from domain.places import WITHOUT_LEGISLATURE

BASIS_POINTS_PER_CENT: Final = 100


class TaxName(StrEnum):
    """What a tax is called on an invoice."""

    CGST = "CGST"
    SGST = "SGST"
    UTGST = "UTGST"
    IGST = "IGST"


class Tax(msgspec.Struct, frozen=True):
    """A tax of so much: its rate in basis points (900 is 9 %), its amount in minor units."""

    name: TaxName
    rate_basis_points: int
    amount_minor: int


def gst(tax_minor: int, per_cent: int, *, seller_state: str, buyer_state: str | None) -> tuple[Tax, ...]:
    """Return the taxes that a tax amount is made of; their amounts add up to it exactly.

    States are GST codes; a buyer outside India has none. An odd paisa is with the state's half.
    """
    if tax_minor == 0:
        return ()
    rate = per_cent * BASIS_POINTS_PER_CENT
    if buyer_state != seller_state:
        return (Tax(TaxName.IGST, rate, tax_minor),)
    of_state = TaxName.UTGST if seller_state in WITHOUT_LEGISLATURE else TaxName.SGST
    central = tax_minor // 2
    return (Tax(TaxName.CGST, rate // 2, central), Tax(of_state, rate // 2, tax_minor - central))


class Parts(msgspec.Struct, frozen=True):
    """What a payment, or what was given back of it, is made of, in minor units."""

    amount_minor: int
    tax_minor: int

    @property
    def total_minor(self) -> int:
        return self.amount_minor + self.tax_minor

    def minus(self, other: Parts) -> Parts:
        """Return what is left without another's parts."""
        return Parts(self.amount_minor - other.amount_minor, self.tax_minor - other.tax_minor)

    def share(self, total_minor: int) -> Parts:
        """Return the first `total_minor` of it, tax in proportion, halves rounded up.

        Shares that grow to the whole never shrink in either part, so the differences between them are refunds
        that add up to the whole exactly.

        Raises:
            InvalidInput: there is not so much of it.
        """
        if not 0 <= total_minor <= self.total_minor:
            raise InvalidInput("amount_minor", f"{total_minor} is outside 0 to {self.total_minor}")
        if total_minor == 0:
            return Parts(0, 0)
        tax_minor = divide_half_up(self.tax_minor * total_minor, self.total_minor)
        return Parts(total_minor - tax_minor, tax_minor)
