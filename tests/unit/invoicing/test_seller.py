"""The seller from the settings: complete and valid, or an error message."""

from typing import Any

import pytest

from infra.invoicing.seller import DEMO_SELLER, seller_of
from infra.settings import InvalidSetting, Settings

SELLER: dict[str, Any] = {
    "seller_name": "Photo Platform Pvt Ltd",
    "seller_email": "accounts@platform.example",
    "seller_gstin": "29aagcb7383j1z4",
    "seller_address": "12 MG Road | 4th floor",
    "seller_city": "Bengaluru",
    "seller_postal_code": "560001",
    "seller_state": "29",
    "seller_invoice_prefix": "PP",
    "seller_letter_of_undertaking": "AD290426000001X",
}


def test_a_complete_seller() -> None:
    seller = seller_of(Settings(**SELLER))
    assert (seller.name, seller.gstin, seller.gst_state) == (SELLER["seller_name"], "29AAGCB7383J1Z4", "29")
    assert seller.address.lines == ("12 MG Road", "4th floor")
    assert seller.address.state == "Karnataka"
    assert (seller.prefix, seller.service_code, seller.time_zone) == ("PP", "998439", "Asia/Kolkata")
    assert seller.letter_of_undertaking == "AD290426000001X"
    assert seller.remark is None


def test_without_a_seller_documents_are_specimens() -> None:
    assert seller_of(Settings()) is DEMO_SELLER
    assert DEMO_SELLER.remark is not None
    assert "no tax document" in DEMO_SELLER.remark
    assert DEMO_SELLER.prefix != Settings().seller_invoice_prefix, (
        "its numbers are not those of a real seller"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seller_gstin": None, "seller_city": None}, "settings are required too: SELLER_GSTIN, SELLER_CITY"),
        ({"seller_gstin": "29AAGCB7383J1Z5"}, "SELLER_GSTIN: .* a character of it is mistyped"),
        ({"seller_state": "Maharashtra"}, "SELLER_GSTIN: the GSTIN is of Karnataka"),
        ({"seller_state": "Bavaria"}, "SELLER_STATE: 'Bavaria' is no state of India"),
        (
            {"seller_postal_code": "12345"},
            "SELLER_POSTAL_CODE: '12345' is no PIN code of India: it has six digits, such as 560001",
        ),
        ({"seller_address": "a|b|c|d"}, "SELLER_ADDRESS: an address has 1 to 3 lines"),
        ({"seller_email": "nobody"}, "SELLER_EMAIL: 'nobody' is no email address"),
        ({"seller_invoice_prefix": "ABC"}, "SELLER_INVOICE_PREFIX: must be one or two capital letters"),
        ({"seller_time_zone": "IST"}, "SELLER_TIME_ZONE: 'IST' is not an IANA time zone"),
    ],
)
def test_an_invalid_setting_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSetting, match=sentence):
        seller_of(Settings(**(SELLER | changes)))
