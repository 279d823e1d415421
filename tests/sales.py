"""Sales for tests of invoices: sellers, buyers, payments and refunds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from domain.invoicing.billing_details import Address, BillingDetails
from domain.invoicing.document_builder import credit_note_of, invoice_of
from domain.invoicing.documents import DocumentKind, InvoiceDocument, InvoiceText, Seller
from domain.invoicing.invoice_series import InvoiceSeries, series_at
from domain.invoicing.sale import Sale, sale_of
from domain.payments.events import (
    PaymentCompleted,
    PaymentKind,
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundRequested,
    PaymentRequested,
)
from domain.pricing.price_book import PriceBook
from domain.shared.command_context import CommandContext
from domain.shared.money import Currency

KOLKATA = "Asia/Kolkata"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
OF_PAYMENT = (NOON, "u-1", "request-1", "org-4711", "payment-1")
REQUEST = CommandContext(NOON, "u-1", "request-1")
SELLER = Seller(
    "Seller Pvt Ltd",
    "accounts@seller.example",
    "29AAGCB7383J1Z4",
    Address("IN", "Karnataka", "Bengaluru", "560001", ("1 Seller Street",)),
    KOLKATA,
    "CL",
    "998439",
)
BENGALURU = Address("IN", "Karnataka", "Bengaluru", "560001", ("12 MG Road",))
MUMBAI = Address("IN", "Maharashtra", "Mumbai", "400001", ("1 Fort",))
BERLIN = Address("DE", "", "Berlin", "10115", ("Invalidenstraße 1",))


class PlainInvoiceText:
    def amount_in_words(self, amount_minor: int, currency: Currency) -> str:
        return f"{amount_minor} of {currency}"

    def country_name(self, code: str) -> str:
        return f"country {code}"


def requested(**changes: Any) -> PaymentRequested:
    terms = PaymentRequested(
        *OF_PAYMENT,
        PaymentKind.CREDITS,
        "razorpay",
        1_000,
        1_500_000,
        150_000,
        0,
        150_000,
        27_000,
        Currency.INR,
        "published-1",
        None,
    )
    return msgspec.structs.replace(terms, **changes)


def make_sale(*more: Any, **changes: Any) -> Sale:
    sale = sale_of(
        [
            requested(**changes),
            PaymentOrdered(*OF_PAYMENT, "razorpay", "order_1"),
            PaymentCompleted(*OF_PAYMENT, "pay_1", 3),
            *more,
        ]
    )
    assert sale is not None
    return sale


def billed_to(address: Address = MUMBAI, **changes: Any) -> BillingDetails:
    return msgspec.structs.replace(BillingDetails("Buyer Ltd", "pay@buyer.example", address), **changes)


def series(kind: DocumentKind = DocumentKind.INVOICE, at: datetime = NOON) -> InvoiceSeries:
    return InvoiceSeries(series_at("CL", kind, KOLKATA, at), KOLKATA)


def invoice(
    sale: Sale,
    details: BillingDetails | None = None,
    seller: Seller = SELLER,
    book: PriceBook | None = None,
    invoice_text: InvoiceText | None = None,
) -> InvoiceDocument:
    prices = (book or PriceBook()).edition(sale.terms.price_version)
    return invoice_of(
        sale,
        details or billed_to(),
        seller=seller,
        prices=prices,
        header=series().next_header(NOON),
        invoice_text=invoice_text or PlainInvoiceText(),
    )


def given_back(refund_id: str, credits_count: int, amount_minor: int, tax_minor: int) -> list[Any]:
    return [
        PaymentRefundRequested(*OF_PAYMENT, refund_id, credits_count, amount_minor, tax_minor),
        PaymentRefunded(*OF_PAYMENT, refund_id, f"rfnd_{refund_id}"),
    ]


def credit_note(
    sale: Sale,
    number: int = 0,
    details: BillingDetails | None = None,
    invoice_text: InvoiceText | None = None,
) -> InvoiceDocument:
    original = invoice(sale, details, invoice_text=invoice_text)
    header = series(DocumentKind.CREDIT_NOTE).next_header(NOON)
    return credit_note_of(original, sale, sale.refunds[number], header, invoice_text or PlainInvoiceText())
