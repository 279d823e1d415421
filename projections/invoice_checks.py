"""Holds the stored documents against the events of their series: nothing lacks, nothing was changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from domain.catalogue import INVOICE, FactCodec
from domain.identity import series_stream, stream_id
from domain.invoice_documents import digest_of
from domain.invoice_facts import CreditNoteIssued, InvoiceIssued
from projections.findings import Finding

Connection = psycopg.Connection[Any]

_EVENTS: Final = """
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE topic = ANY(%s) ORDER BY originator_id, originator_version
"""
_DOCUMENTS: Final = """
    SELECT number, stream, payment_id, refund_id, total_minor, document FROM ledger.invoice_documents
"""

_codec: Final = FactCodec()


def check_invoices(connection: Connection) -> Iterator[Finding]:
    """Return what is wrong with invoices and credit notes: a number out of its place, a document that is
    gone, is not what was issued, or was never issued.

    Documents commit with their events, so no position is needed.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    documents = {number: row for number, *row in _fetch(connection, _DOCUMENTS)}
    expected: dict[object, int] = {}
    for stream, version, topic, state in _fetch(connection, _EVENTS, [list(INVOICE)]):
        fact = _codec.decode(topic, state)
        assert isinstance(fact, InvoiceIssued | CreditNoteIssued)
        owner, place = stream_id(fact.organisation_id), expected.get(stream, 0) + 1
        expected[stream] = place
        series, _, serial = fact.number.rpartition("/")
        if (stream, int(serial), fact.serial, version) != (series_stream(series), place, place, place):
            yield Finding("invoice", owner, f"{fact.number} is event {version} of its series, not {place}")
        document = documents.pop(fact.number, None)
        if document is None:
            yield Finding("invoice", owner, f"{fact.number}: the document is gone")
        elif document != _row_of(fact, document[-1]):
            yield Finding("invoice", owner, f"{fact.number}: the document is not the one that was issued")
    for number in documents:
        yield Finding("invoice", None, f"{number}: a document that the log does not have")


def _row_of(fact: InvoiceIssued | CreditNoteIssued, document: str) -> list[Any] | None:
    """Return the row that belongs to an event, if the document is its own."""
    if digest_of(document.encode()) != fact.digest:
        return None
    refund_id = fact.refund_id if isinstance(fact, CreditNoteIssued) else ""
    total_minor = fact.amount_minor + fact.tax_minor
    return [stream_id(fact.organisation_id), fact.payment_id, refund_id, total_minor, document]


def _fetch(connection: Connection, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
    return connection.cursor(row_factory=tuple_row).execute(query, values).fetchall()
