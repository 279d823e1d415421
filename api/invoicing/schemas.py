"""Invoices and credit notes as the API tells them. Amounts are minor units of the currency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from api.http.fields import Day, Instant
from api.http.views import NextCursor, Position, View
from domain.invoicing.documents import DocumentKind, InvoiceDocument
from domain.invoicing.invoice_series import path_of
from domain.invoicing.tax import TaxName
from domain.shared.money import Currency
from projections.invoicing.queries import InvoicePage

AmountMinor = Annotated[int, Field(ge=0, examples=[150_000])]


class InvoiceAddress(View):
    """An address as it is printed."""

    lines: Sequence[str] = Field(description="Street and house.", examples=[["12 MG Road"]])
    city: str = Field(description="City.", examples=["Bengaluru"])
    state: str = Field(description="State or province.", examples=["Karnataka"])
    state_code: str | None = Field(description="GST code of a state of India.", examples=["29"])
    postal_code: str = Field(description="Postal code.", examples=["560001"])
    country: str = Field(description="ISO 3166-1 code.", examples=["IN"])
    country_name: str = Field(description="Its English name.", examples=["India"])


class InvoiceParty(View):
    """The seller or the buyer, as on file when the invoice was issued."""

    name: str = Field(description="Name.", examples=["Marathon Photos Pvt Ltd"])
    email: str = Field(description="Email address.", examples=["accounts@marathon.example"])
    address: InvoiceAddress = Field(description="Address.")
    phone: str | None = Field(description="Phone number.", examples=["+91 80 4718 0000"])
    tax_id: str | None = Field(description="Tax identifier.", examples=["29AAGCB7383J1Z4"])


class InvoiceLine(View):
    """What was sold, or given back."""

    description: str = Field(description="What it is.", examples=["Photo processing credits"])
    service_code: str = Field(description="Services Accounting Code (SAC).", examples=["998439"])
    amount_minor: AmountMinor = Field(description="Amount, before tax.")
    quantity: int | None = Field(description="How many, where it is counted.", examples=[1_000])
    unit_price_millionths: int | None = Field(
        description="Price of one, in millionths of the currency unit.", examples=[1_500_000]
    )


class InvoiceTax(View):
    """A tax."""

    name: TaxName = Field(description="What it is called.", examples=["IGST"])
    rate_basis_points: int = Field(description="Its rate; 1,800 is 18 %.", examples=[1_800])
    amount_minor: AmountMinor = Field(description="How much it is.")


class InvoiceCorrection(View):
    """What a credit note corrects."""

    invoice_number: str = Field(description="The invoice.", examples=["CL/26-27/000123"])
    invoice_issued_on: Day = Field(description="Its date.")
    refund_id: str = Field(description="The refund that it is for.", examples=["refund-1"])
    refunded_at: Instant = Field(description="When the money went back.")


class InvoiceSummary(View):
    """An invoice or a credit note, in a list."""

    id: str = Field(description="Its number as a path has it.", examples=["CL-26-27-000123"])
    number: str = Field(description="Its number.", examples=["CL/26-27/000123"])
    kind: DocumentKind = Field(description="What it is.", examples=["invoice"])
    title: str = Field(description="Its heading.", examples=["Tax invoice"])
    issued_at: Instant = Field(description="When it was issued.")
    issued_on: Day = Field(description="Its date, in the seller's zone.")
    payment_id: str = Field(description="The payment that it is of.", examples=["payment-1"])
    refund_id: str | None = Field(description="Of a credit note: the refund.", examples=[None])
    currency: Currency = Field(description="The currency of its amounts.", examples=["INR"])
    amount_minor: AmountMinor = Field(description="Amount, before tax.")
    tax_minor: AmountMinor = Field(description="Taxes in all.")
    total_minor: AmountMinor = Field(description="What was paid, or given back.")

    @classmethod
    def of(cls, document: InvoiceDocument) -> InvoiceSummary:
        return cls(**_summary(document))


class Invoices(View):
    """Invoices and credit notes."""

    invoices: Sequence[InvoiceSummary] = Field(description="Latest first.")
    next_cursor: NextCursor
    position: Position

    @classmethod
    def of(cls, page: InvoicePage) -> Invoices:
        return cls(
            invoices=[InvoiceSummary.of(document) for document in page.documents],
            next_cursor=page.next_cursor,
            position=page.position,
        )


class IssuedInvoices(View):
    """The invoice of a payment, and its credit notes behind it."""

    invoices: Sequence[InvoiceSummary] = Field(description="The invoice first.")


class Invoice(InvoiceSummary):
    """All that an invoice or a credit note says, frozen when it was issued."""

    seller: InvoiceParty = Field(description="Who sold.")
    buyer: InvoiceParty = Field(description="Who bought.")
    ship_to: InvoiceAddress | None = Field(description="Another address to ship to.")
    place_of_supply: str | None = Field(description="State, within India.", examples=["Karnataka (29)"])
    lines: Sequence[InvoiceLine] = Field(description="What was sold, or given back.")
    taxes: Sequence[InvoiceTax] = Field(description="Taxes, one by one.")
    total_in_words: str = Field(
        description="The total in words.", examples=["Rupees one thousand, seven hundred and seventy only"]
    )
    gateway: str = Field(description="Who took the money.", examples=["razorpay"])
    gateway_payment_id: str = Field(description="Its id of the payment.", examples=["pay_29QQoUBi66xm2f"])
    order_id: str = Field(description="Its id of the order.", examples=["order_9A33XWu170gUtm"])
    paid_at: Instant = Field(description="When it was paid.")
    notes: Sequence[str] = Field(
        description="Remarks that the law asks for.", examples=[["Tax is not payable on reverse charge."]]
    )
    correction: InvoiceCorrection | None = Field(description="Of a credit note: what it corrects.")
    digest: str = Field(
        description="SHA-256 of the stored document, as the ledger's event has it.", examples=["5f" * 32]
    )
    position: Position

    @classmethod
    def issued(cls, document: InvoiceDocument, *, digest: str, position: int) -> Invoice:
        """Return a document with what the ledger knows of it."""
        told = {
            name: getattr(document, name)
            for name in cls.model_fields
            if name not in _SUMMARY and name not in ("digest", "position")
        }
        return cls.model_validate(
            {**_summary(document), **told, "digest": digest, "position": position}, from_attributes=True
        )


_SUMMARY = frozenset(InvoiceSummary.model_fields)


def _summary(document: InvoiceDocument) -> dict[str, object]:
    told = {name: getattr(document, name) for name in _SUMMARY - {"id", "refund_id"}}
    refund_id = None if document.correction is None else document.correction.refund_id
    return {**told, "id": path_of(document.number), "refund_id": refund_id}
