"""Invoices and credit notes: everything that is printed on them. A document never changes once it is issued.

A document is stored as JSON, and its digest in the event of its series. Later changes of billing details,
prices or settings do not change it, and the digest reveals any change of the stored text.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

import msgspec

from domain.invoicing.billing_details import Address
from domain.invoicing.tax import Tax
from domain.shared.money import Currency


class DocumentKind(StrEnum):
    """The kinds of documents."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


class Seller(msgspec.Struct, frozen=True):
    """The seller. Its address is in India; its days and financial years are those of `time_zone`.

    `prefix` begins its numbers, `service_code` (SAC) says what is sold, `letter_of_undertaking` is the
    reference of the letter under which it exports without tax, and `remark` is printed on every document.
    """

    name: str
    email: str
    gstin: str
    address: Address
    time_zone: str
    prefix: str
    service_code: str
    letter_of_undertaking: str | None = None
    remark: str | None = None

    @property
    def gst_state(self) -> str:
        """The GST code of the seller's state: the first two digits of the GSTIN."""
        return self.gstin[:2]


class InvoiceText(Protocol):
    """The port for texts that depend on the language."""

    def amount_in_words(self, amount_minor: int, currency: Currency) -> str:
        """Return an amount in words, without a full stop."""

    def country_name(self, code: str) -> str:
        """Return the English name of a country."""


class PrintedAddress(msgspec.Struct, frozen=True):
    """An address as it is printed. `state_code` is the GST code of a state of India, None elsewhere."""

    lines: tuple[str, ...]
    city: str
    state: str
    state_code: str | None
    postal_code: str
    country: str
    country_name: str


class Party(msgspec.Struct, frozen=True):
    """The seller or the buyer."""

    name: str
    email: str
    address: PrintedAddress
    phone: str | None = None
    tax_id: str | None = None


class Line(msgspec.Struct, frozen=True):
    """A line: what was sold or refunded, with a quantity and a unit price, or an amount only."""

    description: str
    service_code: str
    amount_minor: int
    quantity: int | None = None
    unit_price_millionths: int | None = None


class Correction(msgspec.Struct, frozen=True):
    """The invoice and the refund that a credit note is about."""

    invoice_number: str
    invoice_issued_on: date
    refund_id: str
    refunded_at: datetime


class InvoiceDocument(msgspec.Struct, frozen=True):
    """An invoice, or with a `correction` a credit note. Amounts are in minor units of the currency.

    `issued_on` is the day in `time_zone`, the seller's. `total_minor` is `amount_minor` plus `tax_minor`.
    """

    kind: DocumentKind
    title: str
    number: str
    issued_at: datetime
    issued_on: date
    time_zone: str
    organisation_id: str
    payment_id: str
    seller: Party
    buyer: Party
    ship_to: PrintedAddress | None
    place_of_supply: str | None
    currency: Currency
    lines: tuple[Line, ...]
    amount_minor: int
    taxes: tuple[Tax, ...]
    tax_minor: int
    total_minor: int
    total_in_words: str
    gateway: str
    gateway_payment_id: str
    order_id: str
    paid_at: datetime
    notes: tuple[str, ...]
    correction: Correction | None = None


class DocumentHeader(msgspec.Struct, frozen=True):
    """The number of a document, and when it is issued. Its series gives both."""

    number: str
    issued_at: datetime
    issued_on: date


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(InvoiceDocument).decode


def encode_document(document: InvoiceDocument) -> bytes:
    """Return the stored text of a document: JSON in UTF-8."""
    return _encode(document)


def decode_document(stored: bytes) -> InvoiceDocument:
    """Return the document with this stored text."""
    return _decode(stored)


def document_digest(stored: bytes) -> str:
    """Return the digest of a stored text that the event of the document keeps: SHA-256, in hexadecimal."""
    return sha256(stored).hexdigest()
