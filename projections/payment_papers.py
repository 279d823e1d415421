"""Which invoice and credit notes payments have. They commit with their events: see `projections.papers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from domain.identity import stream_id
from projections.reading import Connection, fetch

_NUMBERS: Final = """
    SELECT payment_id, refund_id, number FROM ledger.invoice_documents
    WHERE payment_id = ANY(%(payment_ids)s) AND stream = %(stream)s
    ORDER BY issued_at, number
"""


class PaperNumbers(msgspec.Struct, frozen=True):
    """Numbers of a payment's documents; of the invoice None while there is none."""

    invoice: str | None
    credit_notes: list[str]


NO_PAPERS: Final = PaperNumbers(None, [])


def papers_of(
    connection: Connection, organisation_id: str, payment_ids: Sequence[str]
) -> dict[str, PaperNumbers]:
    """Return the documents of these payments, of those that have any."""
    rows = fetch(connection, _NUMBERS, stream=stream_id(organisation_id), payment_ids=list(payment_ids))
    found: dict[str, PaperNumbers] = {}
    for row in rows:
        before = found.get(row["payment_id"], NO_PAPERS)
        found[row["payment_id"]] = (
            PaperNumbers(before.invoice, [*before.credit_notes, row["number"]])
            if row["refund_id"]
            else PaperNumbers(row["number"], before.credit_notes)
        )
    return found
