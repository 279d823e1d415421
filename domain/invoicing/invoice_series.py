"""A series of invoices or credit notes: gapless numbers, one series for each seller and financial year.

A document's number is the version of its event in the series' own history. So each number is used exactly
once, even if several processes write at the same time. The rules are those of India (Central Goods and
Services Tax Rules, 2017, rules 46 and 53): consecutive numbers of at most sixteen characters, unique for a
financial year, which begins on 1 April.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, ClassVar, Final
from uuid import UUID

import msgspec

from domain.invoicing.documents import (
    DocumentHeader,
    DocumentKind,
    InvoiceDocument,
    document_digest,
    encode_document,
)
from domain.invoicing.errors import InvoiceNotFound
from domain.invoicing.events import CreditNoteIssued, DocumentIssued, InvoiceIssued
from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.calendar import local_day
from domain.shared.command_context import CommandContext
from domain.shared.errors import InvariantViolation
from domain.shared.stream_keys import series_stream

PREFIX: Final = re.compile(r"[A-Z0-9]{1,2}", re.ASCII)
"""What a seller's numbers begin with: with it a credit note's number has sixteen characters."""

_APRIL: Final = 4
_PATH_SEGMENT: Final = re.compile(r"([A-Z0-9]{1,3})-(\d\d-\d\d)-(\d{6,9})", re.ASCII)


class SeriesName(msgspec.Struct, frozen=True):
    """The name of a series. `year` is the calendar year in which its financial year begins."""

    prefix: str
    kind: DocumentKind
    year: int

    @property
    def text(self) -> str:
        """The beginning of its numbers, such as `CL/26-27`, or `CLC/26-27` for credit notes."""
        kind_suffix = "C" if self.kind is DocumentKind.CREDIT_NOTE else ""
        return f"{self.prefix}{kind_suffix}/{self.year % 100:02}-{(self.year + 1) % 100:02}"

    @property
    def stream(self) -> UUID:
        """Its stream in the log."""
        return series_stream(self.text)


def series_at(prefix: str, kind: DocumentKind, time_zone: str, at: datetime) -> SeriesName:
    """Return the series of a document that is issued at a moment. The zone is the seller's."""
    return SeriesName(prefix, kind, financial_year(local_day(time_zone, at)))


def financial_year(day: date) -> int:
    """Return the calendar year in which the financial year of a day began."""
    return day.year if day.month >= _APRIL else day.year - 1


def path_of(number: str) -> str:
    """Return a document's number in the form that a URL path uses: without slashes."""
    return number.replace("/", "-")


def number_of(path: str) -> str:
    """Return the number that `path_of` turned into this path segment.

    Raises:
        InvoiceNotFound: no number has this form.
    """
    form = _PATH_SEGMENT.fullmatch(path)
    if form is None:
        raise InvoiceNotFound(f"no invoice has the number {path!r}")
    return "/".join(form.groups())


def _check_serial(series: Aggregate, event: DocumentIssued) -> None:
    if event.serial != series.version:
        raise InvariantViolation(f"{event.number} is document {series.version} of its series")


class InvoiceSeries(Aggregate):
    """A series. Its only state is its version and the time of its last event, so only that event is read."""

    APPLY: ClassVar[Mapping[type, Callable[[Any, Any], None]]] = {
        InvoiceIssued: _check_serial,
        CreditNoteIssued: _check_serial,
    }

    def __init__(self, name: SeriesName, time_zone: str, last: EventEnvelope | None = None) -> None:
        super().__init__(name.stream)
        self.name = name
        self.time_zone = time_zone
        if last is not None:
            self._continue_after(last)

    def next_header(self, at: datetime) -> DocumentHeader:
        """Return the header of the next document. Dates in a series never decrease."""
        issued_at = max(at, self.last_recorded_at)
        number = f"{self.name.text}/{self.version + 1:06}"
        return DocumentHeader(number, issued_at, local_day(self.time_zone, issued_at))

    def issue(self, document: InvoiceDocument, context: CommandContext) -> bytes:
        """Record a document that has the series' next header; return its stored text."""
        stored = encode_document(document)
        common = (
            *msgspec.structs.replace(context, at=document.issued_at).event_header,
            document.organisation_id,
            document.number,
            self.version + 1,
            document.payment_id,
            document.amount_minor,
            document.tax_minor,
            document.currency,
            document_digest(stored),
        )
        correction = document.correction
        self._record(
            InvoiceIssued(*common)
            if correction is None
            else CreditNoteIssued(*common, correction.refund_id, correction.invoice_number)
        )
        return stored
