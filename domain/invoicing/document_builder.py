"""Builds documents: the invoice of a sale, and the credit notes of its refunds."""

from __future__ import annotations

from typing import Final

import msgspec

from domain.invoicing.billing_details import PRINTABLE, Address, BillingDetails
from domain.invoicing.countries import GST_STATES, INDIA, gst_state_code
from domain.invoicing.documents import (
    Correction,
    DocumentHeader,
    DocumentKind,
    InvoiceDocument,
    InvoiceText,
    Line,
    Party,
    PrintedAddress,
    Seller,
)
from domain.invoicing.sale import Refund, Sale
from domain.invoicing.tax import gst
from domain.payments.completion import PRO_DURATION
from domain.payments.events import PaymentKind
from domain.pricing.price_book import Prices

_EXPORT: Final = "Export of services: no tax is charged."
_EXPORT_UNDER_LUT: Final = (
    "Supply meant for export under letter of undertaking {lut} without payment of integrated tax."
)


def invoice_of(
    sale: Sale,
    details: BillingDetails,
    *,
    seller: Seller,
    prices: Prices,
    header: DocumentHeader,
    invoice_text: InvoiceText,
    remark: str | None = None,
) -> InvoiceDocument:
    """Return the invoice of a sale. `prices` are the edition of the price book that the sale used.

    `remark` says what a custom payment is for. It is left out if it cannot be printed.
    """
    terms = sale.terms
    currency_prices = prices.of(terms.currency)
    taxes = gst(
        terms.tax_minor,
        currency_prices.tax_per_cent,
        seller_state=seller.gst_state,
        buyer_state=details.gst_state,
    )
    buyer = _buyer(details, invoice_text)
    return InvoiceDocument(
        DocumentKind.INVOICE,
        "Tax invoice" if taxes else "Invoice",
        header.number,
        header.issued_at,
        header.issued_on,
        seller.time_zone,
        terms.organisation_id,
        terms.payment_id,
        _printed_seller(seller, invoice_text),
        buyer,
        None if details.shipping is None else _printed_address(details.shipping, invoice_text),
        _place_of_supply(details),
        terms.currency,
        _sale_lines(sale, currency_prices.pro_credits, seller.service_code),
        terms.amount_minor,
        taxes,
        terms.tax_minor,
        terms.total_minor,
        invoice_text.amount_in_words(terms.total_minor, terms.currency),
        terms.gateway,
        sale.gateway_payment_id,
        sale.order_id,
        sale.paid_at,
        _notes(seller, buyer, terms.tax_minor, remark),
    )


def credit_note_of(
    invoice: InvoiceDocument, sale: Sale, refund: Refund, header: DocumentHeader, invoice_text: InvoiceText
) -> InvoiceDocument:
    """Return the credit note of a refund. Seller, buyer and tax rates are those of the invoice.

    The taxes of all credit notes of an invoice never exceed the taxes of the invoice.
    """
    before = sale.refunds[: sale.refunds.index(refund)]
    total_minor = refund.amount_minor + refund.tax_minor
    taxes = gst(
        refund.tax_minor,
        sum(tax.rate_basis_points for tax in invoice.taxes) // 100,
        seller_state=invoice.seller.address.state_code or "",
        buyer_state=invoice.buyer.address.state_code,
        before_minor=sum(each.tax_minor for each in before),
    )
    return msgspec.structs.replace(
        invoice,
        kind=DocumentKind.CREDIT_NOTE,
        title="Credit note",
        number=header.number,
        issued_at=header.issued_at,
        issued_on=header.issued_on,
        lines=(_refund_line(invoice, sale, refund),),
        amount_minor=refund.amount_minor,
        taxes=taxes,
        tax_minor=refund.tax_minor,
        total_minor=total_minor,
        total_in_words=invoice_text.amount_in_words(total_minor, invoice.currency),
        correction=Correction(invoice.number, invoice.issued_on, refund.refund_id, refund.at),
    )


def _sale_lines(sale: Sale, pro_credits: int, service_code: str) -> tuple[Line, ...]:
    terms = sale.terms
    if terms.kind is PaymentKind.CUSTOM:
        return (Line("Custom payment", service_code, terms.fee_minor),)
    lines = []
    paid_credits = terms.credits
    if terms.kind is PaymentKind.PRO:
        included = min(pro_credits, terms.credits)
        paid_credits -= included
        with_credits = f", {included:,} credits included" if included else ""
        lines.append(
            Line(f"Pro subscription, {PRO_DURATION.days} days{with_credits}", service_code, terms.fee_minor)
        )
    if paid_credits:
        lines.append(
            Line(
                "Photo processing credits",
                service_code,
                terms.credits_minor,
                paid_credits,
                terms.unit_price_millionths,
            )
        )
    return tuple(lines)


def _refund_line(invoice: InvoiceDocument, sale: Sale, refund: Refund) -> Line:
    service_code = invoice.lines[0].service_code
    if refund.credits:
        unused = "Unused photo processing credits returned"
        return Line(unused, service_code, refund.amount_minor, refund.credits)
    what = "Pro subscription" if sale.terms.kind is PaymentKind.PRO else "Payment"
    return Line(f"{what} refunded", service_code, refund.amount_minor)


def _notes(seller: Seller, buyer: Party, tax_minor: int, remark: str | None) -> tuple[str, ...]:
    notes = [] if seller.remark is None else [seller.remark]
    if remark is not None and PRINTABLE.fullmatch(remark):
        notes.append(f"For: {remark}")
    lut = seller.letter_of_undertaking
    if buyer.address.country == INDIA:
        notes.append("Tax is not payable on reverse charge.")
    elif tax_minor == 0:
        notes.append(_EXPORT if lut is None else _EXPORT_UNDER_LUT.format(lut=lut))
    return tuple(notes)


def _place_of_supply(details: BillingDetails) -> str | None:
    code = details.gst_state
    return None if code is None else f"{GST_STATES[code]} ({code})"


def _buyer(details: BillingDetails, invoice_text: InvoiceText) -> Party:
    return Party(
        details.name,
        details.email,
        _printed_address(details.address, invoice_text),
        details.phone,
        details.tax_id,
    )


def _printed_seller(seller: Seller, invoice_text: InvoiceText) -> Party:
    return Party(
        seller.name, seller.email, _printed_address(seller.address, invoice_text), tax_id=seller.gstin
    )


def _printed_address(address: Address, invoice_text: InvoiceText) -> PrintedAddress:
    return PrintedAddress(
        address.lines,
        address.city,
        address.state,
        gst_state_code(address.state) if address.country == INDIA else None,
        address.postal_code,
        address.country,
        invoice_text.country_name(address.country),
    )
