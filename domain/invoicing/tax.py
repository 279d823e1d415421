"""Goods and Services Tax of India: the taxes that the tax amount of a payment consists of.

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
    """The name of a tax on an invoice."""

    CGST = "CGST"
    SGST = "SGST"
    UTGST = "UTGST"
    IGST = "IGST"


class Tax(msgspec.Struct, frozen=True):
    """A tax: its rate in basis points (900 is 9 %), and its amount in minor units."""

    name: TaxName
    rate_basis_points: int
    amount_minor: int


def gst(
    tax_minor: int, per_cent: int, *, seller_state: str, buyer_state: str | None, before_minor: int = 0
) -> tuple[Tax, ...]:
    """Return the taxes that a tax amount consists of. Their amounts add up to it exactly.

    States are GST codes; a buyer outside India has none. If the amount is odd, the state's half gets the
    extra paisa. If a tax is refunded in parts, `before_minor` is what was refunded before: then both halves
    add up over all parts, too.
    """
    if tax_minor == 0:
        return ()
    rate = per_cent * BASIS_POINTS_PER_CENT
    if buyer_state != seller_state:
        return (Tax(TaxName.IGST, rate, tax_minor),)
    of_state = TaxName.UTGST if seller_state in WITHOUT_LEGISLATURE else TaxName.SGST
    central = (before_minor + tax_minor) // 2 - before_minor // 2
    return (Tax(TaxName.CGST, rate // 2, central), Tax(of_state, rate // 2, tax_minor - central))
