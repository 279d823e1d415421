"""Billing details and documents in PostgreSQL, on the connections of the event store.

A thread inside `exclusive` uses one connection throughout, so rows written here commit with the events.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

import msgspec
from psycopg.rows import tuple_row

from domain.invoicing.billing_details import BillingDetails
from domain.invoicing.documents import InvoiceDocument
from domain.invoicing.ports import StoredBillingDetails
from domain.shared.stream_keys import stream_id
from infra.event_store.datastore import LedgerDatastore

_SALT_BYTES: Final = 32

_BILLING: Final = """
    SELECT details::text, changed_at, changed_by FROM ledger.billing_details WHERE stream = %s
"""
_PUT_BILLING: Final = """
    INSERT INTO ledger.billing_details (stream, details, salt, changed_at, changed_by)
    VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (stream) DO UPDATE SET (details, salt, changed_at, changed_by)
        = (excluded.details, excluded.salt, excluded.changed_at, excluded.changed_by)
"""
_ERASE_BILLING: Final = "DELETE FROM ledger.billing_details WHERE stream = %s RETURNING stream"
# The invoice has no refund id, so it comes first. Later numbers of a series have the same length or are
# longer.
_DOCUMENTS: Final = """
    SELECT document FROM ledger.invoice_documents WHERE payment_id = %s
    ORDER BY refund_id <> '', issued_at, length(number), number
"""
_REMARK: Final = "SELECT remark FROM ledger.payment_remarks WHERE payment_id = %s"
_ADD_DOCUMENT: Final = """
    INSERT INTO ledger.invoice_documents
        (number, stream, payment_id, refund_id, issued_at, total_minor, document)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""

# The condition matches the partial index, so that PostgreSQL reads only due payments. A credit note is due if
# the refunded amount exceeds the credited amount.
_DUE: Final = """
    SELECT organisation_id, payment_id
    FROM projections.payments JOIN projections.balances USING (stream)
    WHERE completed_at IS NOT NULL
        AND (invoiced AND refunded_minor > credited_minor OR NOT invoiced AND billable)
    ORDER BY completed_at LIMIT %(limit)s
"""
# Billing details may be newer than the projection.
_DUE_OF: Final = """
    SELECT organisation_id, payment_id
    FROM projections.payments JOIN projections.balances USING (stream)
    WHERE stream = %(stream)s AND completed_at IS NOT NULL
        AND (NOT invoiced OR refunded_minor > credited_minor)
        AND (invoiced OR EXISTS (SELECT FROM ledger.billing_details WHERE stream = %(stream)s))
    ORDER BY completed_at LIMIT %(limit)s
"""


class PostgresBillingDocumentStore:
    """Implements `domain.invoicing.ports.BillingDocumentStore`."""

    def __init__(self, datastore: LedgerDatastore) -> None:
        self._datastore = datastore

    def new_salt(self) -> bytes:
        """Return random bytes."""
        return secrets.token_bytes(_SALT_BYTES)

    def billing_details(self, organisation_id: str) -> StoredBillingDetails | None:
        """Return the stored billing details, or None."""
        rows = self._run(_BILLING, stream_id(organisation_id))
        if not rows:
            return None
        ((details, changed_at, changed_by),) = rows
        return StoredBillingDetails(
            msgspec.json.decode(details, type=BillingDetails, strict=True), changed_at, changed_by
        )

    def put_billing_details(self, organisation_id: str, on_file: StoredBillingDetails, salt: bytes) -> None:
        """Store billing details, and replace earlier ones."""
        details = msgspec.json.encode(on_file.details).decode()
        row = (stream_id(organisation_id), details, salt, on_file.changed_at, on_file.changed_by)
        self._run(_PUT_BILLING, *row)

    def erase_billing_details(self, organisation_id: str) -> bool:
        """Delete the billing details. Return whether there were any."""
        return bool(self._run(_ERASE_BILLING, stream_id(organisation_id)))

    def documents_of(self, payment_id: str) -> Sequence[bytes]:
        """Return the stored documents of a payment: its invoice, then its credit notes."""
        return [document.encode() for (document,) in self._run(_DOCUMENTS, payment_id)]

    def find_remark(self, payment_id: str) -> str | None:
        """Return the remark on a custom payment, or None."""
        rows = self._run(_REMARK, payment_id)
        return rows[0][0] if rows else None

    def add_document(self, document: InvoiceDocument, stored: bytes) -> None:
        """Store a document."""
        correction = document.correction
        self._run(
            _ADD_DOCUMENT,
            document.number,
            stream_id(document.organisation_id),
            document.payment_id,
            "" if correction is None else correction.refund_id,
            document.issued_at,
            document.total_minor,
            stored.decode(),
        )

    def list_due_payments(self, organisation_id: str | None, limit: int) -> Sequence[tuple[str, str]]:
        """Return (organisation id, payment id) of payments with a due document, oldest first."""
        if organisation_id is None:
            rows = self._rows(_DUE, {"limit": limit})
        else:
            rows = self._rows(_DUE_OF, {"stream": stream_id(organisation_id), "limit": limit})
        return [(owner, payment_id) for owner, payment_id in rows]

    def _run(self, statement: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        return self._rows(statement, parameters)

    def _rows(
        self, statement: LiteralString, parameters: Sequence[object] | Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        with (
            self._datastore.get_connection() as connection,
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
