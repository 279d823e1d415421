"""Billing details: accepted values, and their normalised form."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.invoicing.billing_details import Address, BillingDetails, validated
from domain.invoicing.tax_identifiers import check_gstin, check_tax_id
from domain.shared.errors import InvalidInput

GSTIN_OF_KARNATAKA = "29AAGCB7383J1Z4"
BENGALURU = Address("IN", "Karnataka", "Bengaluru", "560001", ("12 MG Road", "4th floor"))
BERLIN = Address("DE", "", "Berlin", "10115", ("Invalidenstraße 1",))
DETAILS = BillingDetails("Marathon Photos Pvt Ltd", "accounts@marathon.example", BENGALURU)

# From invoices of listed companies, and from the documentation of python-stdnum and a payment gateway.
REAL_GSTINS = [
    "27AAPFU0939F1ZV",
    "29AAGCB7383J1Z4",
    "27AAACR5055K1Z7",
    "27AAACT2727Q1ZW",
    "07AAACB2894G1ZP",
    "29AAACI4798L1ZU",
    "27AAACH2702H1Z0",
    "24AAACC1206D1ZM",
]


def details(**changes: Any) -> BillingDetails:
    return msgspec.structs.replace(DETAILS, **changes)


def in_bengaluru(**changes: Any) -> Address:
    return msgspec.structs.replace(BENGALURU, **changes)


def test_valid_details_are_unchanged() -> None:
    assert validated(DETAILS) == DETAILS
    full = details(phone="+91 80 4718 0000", tax_id=GSTIN_OF_KARNATAKA, shipping=BERLIN)
    assert validated(full) == full


def test_spaces_case_and_codes_are_normalised() -> None:
    tidied = validated(
        details(
            name="  Marathon   Photos Pvt Ltd ",
            address=in_bengaluru(country="in", state="29", postal_code="560 001"),
            tax_id=" 29aagcb-7383j-1z4 ",
            phone="",
        )
    )
    assert tidied == details(tax_id=GSTIN_OF_KARNATAKA)


def test_the_place_of_supply_is_the_buyers_state() -> None:
    assert DETAILS.gst_state == "29"
    assert details(address=BERLIN).gst_state is None


def test_outside_india_states_and_postal_codes_are_free() -> None:
    assert validated(details(address=BERLIN)).address == BERLIN


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": "मैराथन"}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"email": "accounts"}, "email"),
        ({"email": "a b@c.example"}, "email"),
        ({"phone": "call me"}, "phone"),
        ({"tax_id": "29AAGCB7383J1Z5"}, "tax_id"),
        ({"tax_id": "27AAPFU0939F1ZV"}, "tax_id"),
        ({"address": in_bengaluru(country="India")}, "address.country"),
        ({"address": in_bengaluru(state="Bavaria")}, "address.state"),
        ({"address": in_bengaluru(city="")}, "address.city"),
        ({"address": in_bengaluru(postal_code="0560001")}, "address.postal_code"),
        ({"address": in_bengaluru(lines=())}, "address.lines"),
        ({"address": in_bengaluru(lines=("a", "b", "c", "d"))}, "address.lines"),
        ({"address": in_bengaluru(lines=("",))}, "address.lines"),
        ({"address": in_bengaluru(lines=("a", " "))}, "address.lines.1"),
        ({"address": in_bengaluru(lines=("a", "x" * 81))}, "address.lines.1"),
        ({"address": in_bengaluru(state="")}, "address.state"),
        ({"address": in_bengaluru(postal_code="")}, "address.postal_code"),
        ({"shipping": in_bengaluru(state="")}, "shipping.state"),
    ],
)
def test_an_invalid_value_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        validated(details(**changes))
    assert refusal.value.field == field


def test_all_invalid_values_are_refused_together() -> None:
    nothing = Address("IN", "", "", "", ("",))
    with pytest.raises(InvalidInput) as refusal:
        validated(BillingDetails("", "", nothing, phone="call me", tax_id="29", shipping=nothing))
    parts = ("lines", "city", "postal_code", "state")
    assert [field for field, _ in refusal.value.field_errors] == [
        *("name", "email", "phone"),
        *(f"address.{part}" for part in parts),
        "tax_id",
        *(f"shipping.{part}" for part in parts),
    ]


def test_a_missing_value_has_a_readable_message() -> None:
    with pytest.raises(InvalidInput) as refusal:
        validated(details(name="", address=in_bengaluru(postal_code="", state="", lines=())))
    assert [why for _, why in refusal.value.field_errors] == [
        "a name is needed",
        "street and house are needed",
        "a PIN code is needed in India: six digits, such as 560001",
        "a state is needed in India",
    ]


def test_a_gstin_is_not_compared_with_an_invalid_state() -> None:
    with pytest.raises(InvalidInput) as refusal:
        validated(details(tax_id=GSTIN_OF_KARNATAKA, address=in_bengaluru(state="Bavaria")))
    assert refusal.value.field_errors == (
        ("address.state", "'Bavaria' is no state of India, nor its GST code"),
    )


@pytest.mark.parametrize("address", [BENGALURU, Address("AE", "", "Dubai", "", ("1 Road",))])
def test_a_blank_value_is_none(address: Address) -> None:
    kept = validated(details(phone=" ", tax_id=" ", address=address))
    assert (kept.phone, kept.tax_id) == (None, None)


def test_a_gstin_of_another_state_names_it() -> None:
    with pytest.raises(InvalidInput, match=r"of Maharashtra \(27\), the address of Karnataka \(29\)"):
        validated(details(tax_id="27AAPFU0939F1ZV"))


@pytest.mark.parametrize("gstin", REAL_GSTINS)
def test_real_gstins_pass(gstin: str) -> None:
    assert check_gstin(gstin) == gstin


@given(
    gstin=st.sampled_from(REAL_GSTINS),
    place=st.integers(0, 14),
    character=st.sampled_from("0123456789ABCXYZ"),
)
def test_a_mistyped_character_is_always_found(gstin: str, place: int, character: str) -> None:
    mistyped = f"{gstin[:place]}{character}{gstin[place + 1 :]}"
    if mistyped != gstin:
        with pytest.raises(InvalidInput, match="is no GSTIN"):
            check_tax_id("IN", mistyped)


@pytest.mark.parametrize(
    ("country", "written", "kept"),
    [
        ("AU", "51 824 753 556", "51824753556"),
        ("CA", "12302 6635 RC 0001", "123026635RC0001"),
        ("DE", "136 695 977", None),
        ("DE", "136 695 976", "DE136695976"),
        ("DE", "de136695976", "DE136695976"),
        ("FR", "DE136695976", None),
        ("GB", "GB 980 7806 84", "980780684"),
        ("GB", "802311781", None),
        ("GR", "094259216", "EL094259216"),
        ("NZ", "4909185-0", "49091850"),
        ("US", "91-1144442", "911144442"),
        ("US", "07-1144442", None),
        ("AE", "TRN 100-3", "TRN 100-3"),
        ("AE", "1" * 41, None),
    ],
)
def test_tax_identifiers_of_other_countries(country: str, written: str, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(InvalidInput) as refusal:
            check_tax_id(country, written)
        assert refusal.value.field == "tax_id"
    else:
        assert check_tax_id(country, written) == kept
