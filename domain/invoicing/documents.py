"""What an invoice or a credit note says: everything that is printed on it, frozen when it is issued.

A document is stored as JSON, and its digest in the event of its series: later edits of billing details,
prices or settings leave it alone, and any change of the stored text shows.
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
    """What a document is."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


class Seller(msgspec.Struct, frozen=True):
    """Who sells. Its address is in India; `time_zone` is the one that its days and financial years are of.

    `prefix` begins its numbers, `service_code` (SAC) says what is sold, `letter_of_undertaking` names the one
    that it exports under, `remark` stands on every document, if any.
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
        """The GST code of its state: the first two digits of its GSTIN."""
        return self.gstin[:2]


class InvoiceText(Protocol):
    """Words of documents that depend on language and country."""

    def amount_in_words(self, amount_minor: int, currency: Currency) -> str:
        """Return an amount as a sentence without its full stop."""

    def country_name(self, code: str) -> str:
        """Return the English name of a country."""


class PrintedAddress(msgspec.Struct, frozen=True):
    """An address as it is printed; `state_code` is the GST code of a state of India."""

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
    """What was sold, or given back: so many at so much each, or an amount."""

    description: str
    service_code: str
    amount_minor: int
    quantity: int | None = None
    unit_price_millionths: int | None = None


class Correction(msgspec.Struct, frozen=True):
    """What a credit note corrects, and when the money went back."""

    invoice_number: str
    invoice_issued_on: date
    refund_id: str
    refunded_at: datetime


class InvoiceDocument(msgspec.Struct, frozen=True):
    """An invoice, or with a `correction` a credit note. Amounts are minor units of the currency.

    `issued_on` is the day in the seller's zone, `time_zone`; `total_minor` is the amount of the lines and
    the taxes together.
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
    """What a series gives a document: its number, and when it is issued."""

    number: str
    issued_at: datetime
    issued_on: date


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(InvoiceDocument).decode


def encode_document(document: InvoiceDocument) -> bytes:
    """Return the stored text of a document: JSON in UTF-8."""
    return _encode(document)


def decode_document(stored: bytes) -> InvoiceDocument:
    """Return the document of a stored text."""
    return _decode(stored)


def document_digest(stored: bytes) -> str:
    """Return what the event of a document keeps of its stored text."""
    return sha256(stored).hexdigest()
