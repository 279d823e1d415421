"""The facts of a series of invoices or credit notes: its n-th fact is the document with the serial number n.

The documents themselves name people, so they lie beside the log. The digest proves that one is as it was
issued. Amounts are in minor units of the currency; tax comes on top.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

from domain.shared.errors import InvariantViolation
from domain.shared.money import Currency

if TYPE_CHECKING:
    from domain.invoicing.invoice_series import InvoiceSeries


class _DocumentIssued(msgspec.Struct, frozen=True, array_like=True, gc=False):
    recorded_at: datetime
    actor: str | None
    cause: str
    organisation_id: str
    number: str
    serial: int
    payment_id: str
    amount_minor: int
    tax_minor: int
    currency: Currency
    digest: str

    balance_delta: ClassVar[int] = 0

    def apply(self, series: InvoiceSeries) -> None:
        if self.serial != series.version:
            raise InvariantViolation(f"{self.number} is document {series.version} of its series")


class InvoiceIssued(_DocumentIssued, frozen=True, array_like=True, gc=False):
    """A payment has its invoice. `digest` is the SHA-256 of the document, in hexadecimal."""


class CreditNoteIssued(_DocumentIssued, frozen=True, array_like=True, gc=False):
    """Money that went back has its credit note, which corrects the invoice named."""

    refund_id: str
    invoice_number: str
