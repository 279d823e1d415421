"""Queries for billing details and invoices. These tables are not projections: they commit with their events.

So a result is exact at the end of the log, and a write can be read as soon as its organisation is projected.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from domain.invoicing.billing_details import BillingDetails
from domain.invoicing.documents import InvoiceDocument, decode_document, document_digest
from domain.invoicing.errors import InvoiceNotFound
from projections.connection import Connection
from projections.query.cursors import InvoiceCursor, decode_cursor, encode_cursor
from projections.query.sql import check_limit, fetch_of

_LOG_END: Final = '(SELECT coalesce(max(notification_id), 0) FROM ledger.events) AS "position"'

_BILLING: Final = f"""
    SELECT details, changed_at, changed_by, {_LOG_END}
    FROM projections.balances LEFT JOIN ledger.billing_details USING (stream) WHERE stream = %(stream)s
"""  # noqa: S608 - of the text above

_INVOICES: Final = f"""
    SELECT listed.document, {_LOG_END}
    FROM projections.balances
    LEFT JOIN LATERAL (
        SELECT document, issued_at, number FROM ledger.invoice_documents
        WHERE stream = %(stream)s
            AND (%(issued_at)s::timestamptz IS NULL OR (issued_at, number) < (%(issued_at)s, %(number)s))
        ORDER BY issued_at DESC, number DESC LIMIT %(limit)s
    ) AS listed ON true
    WHERE balances.stream = %(stream)s
    ORDER BY listed.issued_at DESC, listed.number DESC
"""  # noqa: S608 - of the text above

_INVOICE: Final = f"""
    SELECT document, {_LOG_END}
    FROM projections.balances
    LEFT JOIN ledger.invoice_documents issued ON issued.stream = balances.stream AND number = %(number)s
    WHERE balances.stream = %(stream)s
"""  # noqa: S608 - of the text above


class BillingDetailsStatus(msgspec.Struct, frozen=True):
    """The billing details, when and by whom they were changed; all None if there are none."""

    details: BillingDetails | None
    changed_at: datetime | None
    changed_by: str | None
    position: int


class IssuedDocument(msgspec.Struct, frozen=True):
    """A document, and the digest of its stored text, which its event contains too."""

    document: InvoiceDocument
    digest: str
    position: int


class InvoicePage(msgspec.Struct, frozen=True):
    """Documents, newest first; `next_cursor` is None on the last page."""

    documents: list[InvoiceDocument]
    next_cursor: str | None
    position: int


def billing_details(connection: Connection, organisation_id: str) -> BillingDetailsStatus:
    """Return the billing details of an organisation.

    Raises:
        OrganisationNotFound: no such organisation is projected.
    """
    (row,) = fetch_of(connection, organisation_id, _BILLING)
    return msgspec.convert(row, BillingDetailsStatus)


def invoices(connection: Connection, organisation_id: str, cursor: str | None, limit: int) -> InvoicePage:
    """Return a page of an organisation's invoices and credit notes, newest first.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        InvalidInput: the cursor belongs to another list, or `limit` is outside 1 to 500.
    """
    check_limit(limit)
    after = decode_cursor(cursor, InvoiceCursor) if cursor else None
    rows = fetch_of(
        connection,
        organisation_id,
        _INVOICES,
        issued_at=after and after.issued_at,
        number=after and after.number,
        limit=limit + 1,
    )
    listed = [decode_document(row["document"].encode()) for row in rows if row["document"] is not None]
    page = listed[:limit]
    next_cursor = None
    if len(listed) > limit:
        next_cursor = encode_cursor(InvoiceCursor(page[-1].issued_at, page[-1].number))
    return InvoicePage(page, next_cursor, rows[0]["position"])


def invoice(connection: Connection, organisation_id: str, number: str) -> IssuedDocument:
    """Return a document by its number.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        InvoiceNotFound: the organisation has no document of this number.
    """
    (row,) = fetch_of(connection, organisation_id, _INVOICE, number=number)
    if row["document"] is None:
        raise InvoiceNotFound(f"the organisation has no invoice of the number {number!r}")
    stored: bytes = row["document"].encode()
    return IssuedDocument(decode_document(stored), document_digest(stored), row["position"])
