"""What invoicing needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from domain.invoicing.billing_details import BillingDetails
from domain.invoicing.documents import (
    InvoiceDocument,
)


class StoredBillingDetails(msgspec.Struct, frozen=True):
    """Billing details, and who put them on file when."""

    details: BillingDetails
    changed_at: datetime
    changed_by: str | None


class BillingDocumentStore(Protocol):
    """Billing details and documents, stored beside the log.

    What is written inside `EventStore.exclusive` is in one transaction with the events.
    """

    def new_salt(self) -> bytes:
        """Return randomness to digest billing details with: erased together, the digest tells nothing."""

    def billing_details(self, organisation_id: str) -> StoredBillingDetails | None:
        """Return the billing details on file."""

    def put_billing_details(self, organisation_id: str, on_file: StoredBillingDetails, salt: bytes) -> None:
        """Put billing details on file, in place of those there."""

    def erase_billing_details(self, organisation_id: str) -> bool:
        """Take billing details off the file; tell whether there were any."""

    def documents_of(self, payment_id: str) -> Sequence[bytes]:
        """Return the documents of a payment as they are stored, oldest first."""

    def find_remark(self, payment_id: str) -> str | None:
        """Return what was written about a custom payment: what it is for."""

    def add_document(self, document: InvoiceDocument, stored: bytes) -> None:
        """Store a document."""

    def list_due_payments(self, organisation_id: str | None, limit: int) -> Sequence[tuple[str, str]]:
        """Return organisations and payments that lack a document and can have it, oldest first."""
