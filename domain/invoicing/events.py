"""The events of a series of invoices or credit notes: its n-th event is the document with serial number n.

Documents name people, so they are stored outside the log. The digest proves that a document has not changed
since it was issued. Amounts are in minor units of the currency, without tax.
"""

from __future__ import annotations

from domain.shared.aggregate import EventHeader
from domain.shared.money import Currency


class DocumentIssued(EventHeader, frozen=True):
    """A document got the next number of its series."""

    organisation_id: str
    number: str
    serial: int
    payment_id: str
    amount_minor: int
    tax_minor: int
    currency: Currency
    digest: str


class InvoiceIssued(DocumentIssued, frozen=True):
    """A payment has its invoice. `digest` is the SHA-256 of the document, in hexadecimal."""


class CreditNoteIssued(DocumentIssued, frozen=True):
    """A refund has its credit note, which corrects the invoice `invoice_number`."""

    refund_id: str
    invoice_number: str
