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
from projections.streaming import in_batches, stream_rows

Connection = psycopg.Connection[Any]

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
_DOCUMENTS_AT_ONCE: Final = 500

_codec: Final = FactCodec()


def check_invoices(connection: Connection) -> Iterator[Finding]:
    """Return what is wrong with invoices and credit notes: a number out of its place, a document that is
    gone, is not what was issued, or was never issued.

    Documents commit with their events, so no position is needed. Takes a connection in a transaction; however
    many documents there are, few are held at a time.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    places: dict[object, int] = {}
    events = stream_rows(connection, "invoice_events", _EVENTS, [list(INVOICE)])
    for batch in in_batches(events, _DOCUMENTS_AT_ONCE):
        issued = [(stream, version, _issued(topic, state)) for stream, version, topic, state in batch]
        numbers = [fact.number for _, _, fact in issued]
        documents = {number: row for number, *row in _fetch(connection, _DOCUMENTS, [numbers])}
        for stream, version, fact in issued:
            owner, place = stream_id(fact.organisation_id), places.get(stream, 0) + 1
            places[stream] = place
            series, _, serial = fact.number.rpartition("/")
            if (stream, int(serial), fact.serial, version) != (series_stream(series), place, place, place):
                detail = f"{fact.number} is event {version} of its series, not {place}"
                yield Finding("invoice", owner, detail)
            document = documents.get(fact.number)
            if document is None:
                yield Finding("invoice", owner, f"{fact.number}: the document is gone")
            elif document != _row_of(fact, document[-1]):
                detail = f"{fact.number}: the document is not the one that was issued"
                yield Finding("invoice", owner, detail)
    yield from _documents_of_nothing(connection)


def _documents_of_nothing(connection: Connection) -> Iterator[Finding]:
    """A number tells where its event stands: in the series of its name, at its serial."""
    numbers = (number for (number,) in stream_rows(connection, "invoice_numbers", _ALL_NUMBERS))
    for batch in in_batches(numbers, _DOCUMENTS_AT_ONCE):
        parts = [number.rpartition("/") for number in batch]
        places = [(series_stream(name), int(serial)) for name, _, serial in parts if serial.isdecimal()]
        wanted = [list(column) for column in zip(*places, strict=True)] or [[], []]
        issued = {_issued(topic, state).number for topic, state in _fetch(connection, _EVENTS_AT, wanted)}
        for number in batch:
            if number not in issued:
                yield Finding("invoice", None, f"{number}: a document that the log does not have")


def _issued(topic: str, state: bytes) -> InvoiceIssued | CreditNoteIssued:
    fact = _codec.decode(topic, state)
    assert isinstance(fact, InvoiceIssued | CreditNoteIssued)
    return fact


def _row_of(fact: InvoiceIssued | CreditNoteIssued, document: str) -> list[Any] | None:
    """Return the row that belongs to an event, if the document is its own."""
    if digest_of(document.encode()) != fact.digest:
        return None
    refund_id = fact.refund_id if isinstance(fact, CreditNoteIssued) else ""
    total_minor = fact.amount_minor + fact.tax_minor
    return [stream_id(fact.organisation_id), fact.payment_id, refund_id, total_minor, document]


def _fetch(connection: Connection, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
    return connection.cursor(row_factory=tuple_row).execute(query, values).fetchall()
