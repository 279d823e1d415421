"""Numbers of the invoices and credit notes of payments. See `projections.invoicing.queries`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from domain.shared.stream_keys import stream_id
from projections.connection import Connection
from projections.query.sql import fetch

_NUMBERS: Final = """
    SELECT payment_id, refund_id, number FROM ledger.invoice_documents
    WHERE payment_id = ANY(%(payment_ids)s) AND stream = %(stream)s
    ORDER BY issued_at, number
"""


class DocumentNumbers(msgspec.Struct, frozen=True):
    """Numbers of a payment's documents. `invoice` is None until there is one."""

    invoice: str | None
    credit_notes: list[str]


NO_DOCUMENTS: Final = DocumentNumbers(None, [])


def document_numbers_of(
    connection: Connection, organisation_id: str, payment_ids: Sequence[str]
) -> dict[str, DocumentNumbers]:
    """Return the document numbers of payments, without payments that have none."""
    rows = fetch(connection, _NUMBERS, stream=stream_id(organisation_id), payment_ids=list(payment_ids))
    found: dict[str, DocumentNumbers] = {}
    for row in rows:
        before = found.get(row["payment_id"], NO_DOCUMENTS)
        found[row["payment_id"]] = (
            DocumentNumbers(before.invoice, [*before.credit_notes, row["number"]])
            if row["refund_id"]
            else DocumentNumbers(row["number"], before.credit_notes)
        )
    return found
