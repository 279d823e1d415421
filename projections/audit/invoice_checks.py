"""Compares the stored documents with the events of their series: none is missing, none was changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from psycopg.rows import tuple_row

from domain.event_catalogue import INVOICE_EVENT_TYPES, EventCodec
from domain.invoicing.documents import document_digest
from domain.invoicing.events import CreditNoteIssued, InvoiceIssued
from domain.shared.stream_keys import series_stream, stream_id
from projections.audit.findings import Finding
from projections.audit.row_stream import in_batches, stream_rows
from projections.connection import Connection

_EVENTS: Final = """
    SELECT originator_id, originator_version, topic, state FROM ledger.events
    WHERE topic = ANY(%s) ORDER BY originator_id, originator_version
"""
_DOCUMENTS: Final = """
    SELECT number, stream, payment_id, refund_id, total_minor, document FROM ledger.invoice_documents
    WHERE number = ANY(%s)
"""
_ALL_NUMBERS: Final = "SELECT number FROM ledger.invoice_documents"
_EVENTS_AT: Final = """
    SELECT topic, state FROM unnest(%s::uuid[], %s::bigint[]) AS wanted (originator_id, originator_version)
    JOIN ledger.events USING (originator_id, originator_version)
"""
_DOCUMENT_BATCH_SIZE: Final = 500

_codec: Final = EventCodec()


def check_invoices(connection: Connection) -> Iterator[Finding]:
    """Return findings about invoices and credit notes: a number out of order, or a document that is missing,
    differs from the issued one, or was never issued.

    Documents commit with their events, so no position is needed. Takes a connection in a transaction. Few
    documents are in memory at a time.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    places: dict[object, int] = {}
    events = stream_rows(connection, "invoice_events", _EVENTS, [list(INVOICE_EVENT_TYPES)])
    for batch in in_batches(events, _DOCUMENT_BATCH_SIZE):
        issued = [(stream, version, _issued(topic, state)) for stream, version, topic, state in batch]
        numbers = [event.number for _, _, event in issued]
        documents = {number: row for number, *row in _fetch(connection, _DOCUMENTS, [numbers])}
        for stream, version, event in issued:
            owner, place = stream_id(event.organisation_id), places.get(stream, 0) + 1
            places[stream] = place
            series, _, serial = event.number.rpartition("/")
            if (stream, int(serial), event.serial, version) != (series_stream(series), place, place, place):
                detail = f"{event.number} is event {version} of its series, not {place}"
                yield Finding("invoice", owner, detail)
            document = documents.get(event.number)
            if document is None:
                yield Finding("invoice", owner, f"{event.number}: the document is gone")
            elif document != _row_of(event, document[-1]):
                detail = f"{event.number}: the document is not the one that was issued"
                yield Finding("invoice", owner, detail)
    yield from _orphan_documents(connection)


def _orphan_documents(connection: Connection) -> Iterator[Finding]:
    """Find documents without an event. A number gives its event's place: the series name and the serial."""
    numbers = (number for (number,) in stream_rows(connection, "invoice_numbers", _ALL_NUMBERS))
    for batch in in_batches(numbers, _DOCUMENT_BATCH_SIZE):
        parts = [number.rpartition("/") for number in batch]
        places = [(series_stream(name), int(serial)) for name, _, serial in parts if serial.isdecimal()]
        wanted = [list(column) for column in zip(*places, strict=True)] or [[], []]
        issued = {_issued(topic, state).number for topic, state in _fetch(connection, _EVENTS_AT, wanted)}
        for number in batch:
            if number not in issued:
                yield Finding("invoice", None, f"{number}: a document that the log does not have")


def _issued(topic: str, state: bytes) -> InvoiceIssued | CreditNoteIssued:
    event = _codec.decode(topic, state)
    assert isinstance(event, InvoiceIssued | CreditNoteIssued)
    return event


def _row_of(event: InvoiceIssued | CreditNoteIssued, document: str) -> list[Any] | None:
    """Return the row that belongs to an event, if the stored document is the issued one."""
    if document_digest(document.encode()) != event.digest:
        return None
    refund_id = event.refund_id if isinstance(event, CreditNoteIssued) else ""
    total_minor = event.amount_minor + event.tax_minor
    return [stream_id(event.organisation_id), event.payment_id, refund_id, total_minor, document]


def _fetch(connection: Connection, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
    return connection.cursor(row_factory=tuple_row).execute(query, values).fetchall()
