"""Response bodies of invoices and credit notes. Amounts are in minor units of the currency."""

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
    """An address as printed on a document."""

    lines: Sequence[str] = Field(description="Street and house number.", examples=[["12 MG Road"]])
    city: str = Field(description="City.", examples=["Bengaluru"])
    state: str = Field(description="State or province.", examples=["Karnataka"])
    state_code: str | None = Field(description="GST code of an Indian state.", examples=["29"])
    postal_code: str = Field(description="Postal code.", examples=["560001"])
    country: str = Field(description="ISO 3166-1 code.", examples=["IN"])
    country_name: str = Field(description="English name of the country.", examples=["India"])


class InvoiceParty(View):
    """The seller or the buyer, as on file when the invoice was issued."""

    name: str = Field(description="Name.", examples=["Marathon Photos Pvt Ltd"])
    email: str = Field(description="Email address.", examples=["accounts@marathon.example"])
    address: InvoiceAddress = Field(description="Address.")
    phone: str | None = Field(description="Phone number.", examples=["+91 80 4718 0000"])
    tax_id: str | None = Field(description="Tax identifier.", examples=["29AAGCB7383J1Z4"])


class InvoiceLine(View):
    """A line: what was sold or refunded."""

    description: str = Field(description="Description of the item.", examples=["Photo processing credits"])
    service_code: str = Field(description="Services Accounting Code (SAC).", examples=["998439"])
    amount_minor: AmountMinor = Field(description="Amount excluding tax.")
    quantity: int | None = Field(description="Quantity; null for items without one.", examples=[1_000])
    unit_price_millionths: int | None = Field(
        description="Price of one unit, in millionths of the currency unit.", examples=[1_500_000]
    )


class InvoiceTax(View):
    """One tax of a document."""

    name: TaxName = Field(description="Name of the tax.", examples=["IGST"])
    rate_basis_points: int = Field(description="Rate in basis points; 1,800 is 18 %.", examples=[1_800])
    amount_minor: AmountMinor = Field(description="Amount of the tax.")


class InvoiceCorrection(View):
    """The invoice that a credit note corrects, and the refund."""

    invoice_number: str = Field(description="Number of the invoice.", examples=["CL/26-27/000123"])
    invoice_issued_on: Day = Field(description="Date of the invoice.")
    refund_id: str = Field(description="The refund.", examples=["refund-1"])
    refunded_at: Instant = Field(description="When the money was refunded.")


class InvoiceSummary(View):
    """An invoice or a credit note, in a list."""

    id: str = Field(description="The number in the form that paths use.", examples=["CL-26-27-000123"])
    number: str = Field(description="The number.", examples=["CL/26-27/000123"])
    kind: DocumentKind = Field(description="Invoice or credit note.", examples=["invoice"])
    title: str = Field(description="The title of the document.", examples=["Tax invoice"])
    issued_at: Instant = Field(description="When it was issued.")
    issued_on: Day = Field(description="Date of issue, in the seller's time zone.")
    payment_id: str = Field(description="The payment.", examples=["payment-1"])
    refund_id: str | None = Field(description="For a credit note: the refund.", examples=[None])
    currency: Currency = Field(description="The currency of all amounts.", examples=["INR"])
    amount_minor: AmountMinor = Field(description="Amount excluding tax.")
    tax_minor: AmountMinor = Field(description="Total tax.")
    total_minor: AmountMinor = Field(description="Total including tax.")

    @classmethod
    def of(cls, document: InvoiceDocument) -> InvoiceSummary:
        return cls(**_summary(document))


class Invoices(View):
    """Invoices and credit notes."""

    invoices: Sequence[InvoiceSummary] = Field(description="The page, newest first.")
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
    """The invoice of a payment, followed by its credit notes."""

    invoices: Sequence[InvoiceSummary] = Field(description="The invoice, then its credit notes.")


class Invoice(InvoiceSummary):
    """A complete invoice or credit note. It never changes after it was issued."""

    seller: InvoiceParty = Field(description="The seller.")
    buyer: InvoiceParty = Field(description="The buyer.")
    ship_to: InvoiceAddress | None = Field(description="A different shipping address.")
    place_of_supply: str | None = Field(
        description="The state, for supplies within India.", examples=["Karnataka (29)"]
    )
    lines: Sequence[InvoiceLine] = Field(description="The lines.")
    taxes: Sequence[InvoiceTax] = Field(description="The taxes.")
    total_in_words: str = Field(
        description="The total in words.", examples=["Rupees one thousand, seven hundred and seventy only"]
    )
    gateway: str = Field(description="The payment gateway.", examples=["razorpay"])
    gateway_payment_id: str = Field(
        description="The gateway's id of the payment.", examples=["pay_29QQoUBi66xm2f"]
    )
    order_id: str = Field(description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"])
    paid_at: Instant = Field(description="When the payment was completed.")
    notes: Sequence[str] = Field(
        description="Notes that the law requires.", examples=[["Tax is not payable on reverse charge."]]
    )
    correction: InvoiceCorrection | None = Field(description="For a credit note: what it corrects.")
    digest: str = Field(
        description="SHA-256 of the stored document, as recorded in the ledger.", examples=["5f" * 32]
    )
    position: Position

    @classmethod
    def issued(cls, document: InvoiceDocument, *, digest: str, position: int) -> Invoice:
        """Return a document with its recorded digest and its log position."""
        fields = {
            name: getattr(document, name)
            for name in cls.model_fields
            if name not in _SUMMARY and name not in ("digest", "position")
        }
        return cls.model_validate(
            {**_summary(document), **fields, "digest": digest, "position": position}, from_attributes=True
        )


_SUMMARY = frozenset(InvoiceSummary.model_fields)


def _summary(document: InvoiceDocument) -> dict[str, object]:
    fields = {name: getattr(document, name) for name in _SUMMARY - {"id", "refund_id"}}
    refund_id = None if document.correction is None else document.correction.refund_id
    return {**fields, "id": path_of(document.number), "refund_id": refund_id}
