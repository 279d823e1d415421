"""Goods and Services Tax: which taxes the tax of a payment is made of, and where a sale takes place.

Within the seller's own state the tax is half central (CGST) and half state tax (SGST, or UTGST in a union
territory without a legislature); anywhere else it is integrated tax (IGST): Integrated Goods and Services Tax
Act, 2017, sections 7, 8 and 12. Exports carry none (section 16).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from domain.invoicing.countries import WITHOUT_LEGISLATURE

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


def gst(
    tax_minor: int, per_cent: int, *, seller_state: str, buyer_state: str | None, before_minor: int = 0
) -> tuple[Tax, ...]:
    """Return the taxes that a tax amount is made of; their amounts add up to it exactly.

    States are GST codes; a buyer outside India has none. An odd paisa is with the state's half.
    Of a tax that goes back in parts, `before_minor` went back before: so both halves add up over all parts.
    """
    if tax_minor == 0:
        return ()
    rate = per_cent * BASIS_POINTS_PER_CENT
    if buyer_state != seller_state:
        return (Tax(TaxName.IGST, rate, tax_minor),)
    of_state = TaxName.UTGST if seller_state in WITHOUT_LEGISLATURE else TaxName.SGST
    central = (before_minor + tax_minor) // 2 - before_minor // 2
    return (Tax(TaxName.CGST, rate // 2, central), Tax(of_state, rate // 2, tax_minor - central))
