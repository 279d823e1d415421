"""Invoices as PDF: the text, which is the same every time."""

import io
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from fontTools.ttLib import TTFont
from pypdf import PdfReader

from domain.invoicing.billing_details import (
    LINES_MAX,
    NAME_MAX_LENGTH,
    PLACE_MAX_LENGTH,
    PRINTABLE,
    Address,
)
from domain.invoicing.documents import InvoiceDocument
from domain.payments.events import PaymentKind
from domain.pricing.price_book import CurrencyChange, Edition, PriceBook
from domain.shared.money import Currency
from infra.invoicing.pdf import render_pdf
from infra.invoicing.wording import EnglishInvoiceText
from tests.sales import (
    BENGALURU,
    BERLIN,
    MUMBAI,
    NOON,
    billed_to,
    credit_note,
    given_back,
    invoice,
    make_sale,
)

REPOSITORY = Path(__file__).parents[3]
INVOICE_TEXT = EnglishInvoiceText()
IN_DOLLARS = {
    "currency": Currency.USD,
    "credits_minor": 2_005,
    "amount_minor": 2_005,
    "tax_minor": 0,
    "unit_price_millionths": 20_050,
}


def text_of(document: InvoiceDocument) -> str:
    (page,) = PdfReader(io.BytesIO(render_pdf(document))).pages
    return page.extract_text()


def test_a_tax_invoice_within_the_state() -> None:
    sale = make_sale(
        kind=PaymentKind.PRO,
        credits=100_000,
        credits_minor=15_000_000,
        fee_minor=1_000_000,
        amount_minor=16_000_000,
        tax_minor=2_880_000,
    )
    details = billed_to(
        BENGALURU, name="Marathon Photos Private Limited", tax_id="29AAGCB7383J1Z4", shipping=MUMBAI
    )
    text = text_of(invoice(sale, details, invoice_text=INVOICE_TEXT))
    for line in [
        "Tax invoice",
        "CL/26-27/000001",
        "Marathon Photos Private Limited",
        "GSTIN 29AAGCB7383J1Z4",
        "Maharashtra (27), India",
        "Place of supply",
        "Karnataka (29)",
        "Pro subscription, 365 days 998439 ₹10,000.00",
        "Photo processing credits 998439 1,00,000 ₹1.50 ₹1,50,000.00",
        "Taxable value ₹1,60,000.00",
        "CGST 9 % ₹14,400.00",
        "SGST 9 % ₹14,400.00",
        "Total paid ₹1,88,800.00",
        "Rupees one lakh, eighty-eight thousand, eight",
        "Tax is not payable on reverse charge.",
        "Payment pay_1",
    ]:
        assert line in text


def test_an_export_in_dollars() -> None:
    details = billed_to(BERLIN, name="Läufer & Söhne GmbH", tax_id="DE136695976")
    text = text_of(invoice(make_sale(**IN_DOLLARS), details, invoice_text=INVOICE_TEXT))
    for line in [
        "Invoice",
        "23 Nov 2026",
        "Läufer & Söhne GmbH",
        "Invalidenstraße 1",
        "Germany",
        "VAT ID DE136695976",
        "Photo processing credits 998439 1,000 $0.02005 $20.05",
        "Total paid $20.05",
        "US dollars twenty and five cents only",
        "Export of services: no tax is charged.",
    ]:
        assert line in text
    assert "GST " not in text
    assert "Place of supply" not in text


def test_a_credit_note() -> None:
    sale = make_sale(*given_back("refund-1", 400, 60_000, 10_800))
    text = text_of(credit_note(sale, details=billed_to(MUMBAI), invoice_text=INVOICE_TEXT))
    for line in [
        "Credit note",
        "CLC/26-27/000001",
        "CL/26-27/000001 of 23 Nov 2026",
        "Unused photo processing credits returned 998439 400 ₹600.00",
        "IGST 18 % ₹108.00",
        "Total refunded ₹708.00",
        "Refund refund-1",
    ]:
        assert line in text


def test_dates_are_in_the_sellers_zone() -> None:
    late = datetime(2026, 11, 23, 18, 30, tzinfo=UTC)  # midnight in India
    document = msgspec.structs.replace(invoice(make_sale(), invoice_text=INVOICE_TEXT), paid_at=late)
    assert "24 Nov 2026" in text_of(document)


def test_a_rate_that_halves_to_a_fraction_is_written_in_full() -> None:
    book = PriceBook([Edition("five", NOON, currencies={Currency.INR: CurrencyChange(tax_per_cent=5)})])
    sale = make_sale(price_version="five", tax_minor=7_500)
    text = text_of(invoice(sale, billed_to(BENGALURU), book=book, invoice_text=INVOICE_TEXT))
    assert "CGST 2.5 % ₹37.50" in text


def test_the_same_document_is_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    document = invoice(make_sale(), invoice_text=INVOICE_TEXT)
    first = render_pdf(document)
    monkeypatch.setattr(time, "time", lambda: 4_102_444_800.0)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    assert render_pdf(document) == first
    assert render_pdf(msgspec.structs.replace(document, number="CL/26-27/000002")) != first


def test_rendering_logs_nothing() -> None:
    program = """
from infra.invoicing.pdf import render_pdf
from infra.service.telemetry import log_to_stderr
from tests.sales import invoice, make_sale

log_to_stderr("DEBUG")
render_pdf(invoice(make_sale()))
"""
    printing = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert printing.stderr == ""


def test_the_file_has_a_title() -> None:
    read = PdfReader(io.BytesIO(render_pdf(invoice(make_sale(), invoice_text=INVOICE_TEXT))))
    assert read.metadata is not None
    assert read.metadata.title == "Tax invoice CL/26-27/000001"
    assert read.metadata.author == "Seller Pvt Ltd"
    assert read.metadata.creation_date == NOON
    assert read.trailer["/Root"]["/Lang"] == "en-IN"


def test_the_longest_details_fit_on_the_page() -> None:
    place = "Ж" * PLACE_MAX_LENGTH
    address = Address("DE", place, place, "1" * 16, (place,) * LINES_MAX)
    details = billed_to(address, name="Ж" * NAME_MAX_LENGTH, email=f"{'w' * 240}@ex.com", shipping=address)
    sale = make_sale(kind=PaymentKind.PRO, fee_minor=1_000_000, amount_minor=1_150_000, tax_minor=207_000)
    (page,) = PdfReader(io.BytesIO(render_pdf(invoice(sale, details, invoice_text=INVOICE_TEXT)))).pages
    heights: dict[str, float] = {}
    text = page.extract_text(visitor_text=lambda part, _, at, *__: heights.setdefault(part.strip(), at[5]))
    letters = NAME_MAX_LENGTH * 2 + PLACE_MAX_LENGTH * (LINES_MAX + 2) * 2
    assert text.count("Ж") == letters, "nothing is cut off"
    assert heights["₹13,570.00"] > heights["Questions? Write to accounts@seller.example."] > 0


@pytest.mark.parametrize("name", ["Regular", "Bold"])
def test_the_font_has_every_letter_of_billing_details(name: str) -> None:
    typeface = TTFont(
        io.BytesIO((files("infra") / "invoicing" / "fonts" / f"NotoSans-{name}.ttf").read_bytes())
    )
    has = typeface.getBestCmap()
    letters = [letter for letter in map(chr, range(0x10000)) if PRINTABLE.fullmatch(letter)]
    assert [letter for letter in letters if ord(letter) not in has] == []


@pytest.mark.parametrize(
    ("amount_minor", "currency", "words"),
    [
        (0, Currency.INR, "Rupees zero only"),
        (177_000, Currency.INR, "Rupees one thousand, seven hundred and seventy only"),
        (
            1_234_567_850,
            Currency.INR,
            "Rupees one crore, twenty-three lakh, forty-five thousand, six hundred and seventy-eight"
            " and fifty paise only",
        ),
        (
            1_234_567_801,
            Currency.USD,
            "US dollars twelve million, three hundred and forty-five thousand, six hundred and seventy-eight"
            " and one cents only",
        ),
        (5, Currency.USD, "US dollars zero and five cents only"),
    ],
)
def test_amounts_in_words(amount_minor: int, currency: Currency, words: str) -> None:
    assert INVOICE_TEXT.amount_in_words(amount_minor, currency) == words


def test_names_of_countries() -> None:
    assert [INVOICE_TEXT.country_name(code) for code in ("IN", "GB", "ZZ1")] == [
        "India",
        "United Kingdom",
        "ZZ1",
    ]
