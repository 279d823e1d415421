"""The port of invoicing: where billing details and documents are stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from domain.invoicing.billing_details import BillingDetails
from domain.invoicing.documents import InvoiceDocument


class StoredBillingDetails(msgspec.Struct, frozen=True):
    """Billing details on file: who changed them last, and when."""

    details: BillingDetails
    changed_at: datetime
    changed_by: str | None


class BillingDocumentStore(Protocol):
    """Stores billing details and documents, outside the log.

    Writes inside `EventStore.exclusive` are in the same transaction as the events.
    """

    def new_salt(self) -> bytes:
        """Return a random salt for the digest of billing details. It is erased together with them."""

    def billing_details(self, organisation_id: str) -> StoredBillingDetails | None:
        """Return the billing details on file."""

    def put_billing_details(self, organisation_id: str, on_file: StoredBillingDetails, salt: bytes) -> None:
        """Store billing details in place of the present ones."""

    def erase_billing_details(self, organisation_id: str) -> bool:
        """Erase billing details; tell whether there were any."""

    def documents_of(self, payment_id: str) -> Sequence[bytes]:
        """Return the stored text of the documents of a payment, oldest first."""

    def find_remark(self, payment_id: str) -> str | None:
        """Return the remark of a custom payment: what it is for."""

    def add_document(self, document: InvoiceDocument, stored: bytes) -> None:
        """Store a document."""

    def list_due_payments(self, organisation_id: str | None, limit: int) -> Sequence[tuple[str, str]]:
        """Return the organisation id and payment id of each payment whose documents can be issued now.

        The oldest come first.
        """
