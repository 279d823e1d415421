"""The taxes of a sale, and their parts in a refund."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.invoicing.countries import GST_STATES, gst_state_code
from domain.invoicing.tax import Tax, TaxName, gst

MAHARASHTRA, KARNATAKA, CHANDIGARH, DELHI = "27", "29", "04", "07"


def test_within_the_state_the_tax_is_half_central_and_half_the_states() -> None:
    taxes = gst(27_000, 18, seller_state=KARNATAKA, buyer_state=KARNATAKA)
    assert taxes == (Tax(TaxName.CGST, 900, 13_500), Tax(TaxName.SGST, 900, 13_500))


def test_in_another_state_it_is_integrated() -> None:
    taxes = gst(27_000, 18, seller_state=KARNATAKA, buyer_state=MAHARASHTRA)
    assert taxes == (Tax(TaxName.IGST, 1_800, 27_000),)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        pytest.param(CHANDIGARH, TaxName.UTGST, id="a union territory without a legislature"),
        pytest.param(DELHI, TaxName.SGST, id="a union territory that has one"),
    ],
)
def test_the_name_of_the_states_half(state: str, name: TaxName) -> None:
    assert gst(100, 18, seller_state=state, buyer_state=state)[1].name is name


def test_a_sale_in_rupees_to_another_country_has_integrated_tax() -> None:
    assert gst(5, 18, seller_state=KARNATAKA, buyer_state=None) == (Tax(TaxName.IGST, 1_800, 5),)


def test_an_export_has_no_tax() -> None:
    assert gst(0, 0, seller_state=KARNATAKA, buyer_state=None) == ()


@given(
    tax_minor=st.integers(0, 10**15),
    per_cent=st.sampled_from([1, 5, 12, 18, 28]),
    seller=st.sampled_from(sorted(GST_STATES)),
    buyer=st.sampled_from([*sorted(GST_STATES), None]),
)
def test_taxes_add_up_to_the_paisa(tax_minor: int, per_cent: int, seller: str, buyer: str | None) -> None:
    taxes = gst(tax_minor, per_cent, seller_state=seller, buyer_state=buyer)
    assert sum(tax.amount_minor for tax in taxes) == tax_minor
    assert all(tax.amount_minor >= 0 for tax in taxes)
    assert max((tax.amount_minor for tax in taxes), default=0) - tax_minor // max(len(taxes), 1) in (0, 1)
    assert not taxes or sum(tax.rate_basis_points for tax in taxes) == per_cent * 100


@given(
    tax_minor=st.integers(1, 10**9),
    cuts=st.lists(st.floats(0, 1, exclude_max=True), max_size=8),
    inside=st.booleans(),
)
def test_taxes_refunded_in_parts_add_up_to_those_paid(
    tax_minor: int, cuts: list[float], inside: bool
) -> None:
    states = {"seller_state": KARNATAKA, "buyer_state": KARNATAKA if inside else MAHARASHTRA}
    marks = [0, *sorted(int(cut * tax_minor) for cut in cuts), tax_minor]
    back: dict[TaxName, int] = {}
    for before, after in pairwise(marks):
        for tax in gst(after - before, 18, before_minor=before, **states):
            assert tax.amount_minor >= 0
            back[tax.name] = back.get(tax.name, 0) + tax.amount_minor
    assert back == {tax.name: tax.amount_minor for tax in gst(tax_minor, 18, **states)}


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("Karnataka", "29"),
        ("  tamil   NADU ", "33"),
        ("29", "29"),
        ("Jammu & Kashmir", "01"),
        ("Ladakh", "38"),
        ("Bavaria", None),
        ("28", None),
        ("", None),
    ],
)
def test_states_of_india_by_name_or_code(written: str, code: str | None) -> None:
    assert gst_state_code(written) == code
