"""The use cases of invoices: who they are made out to, and issuing what is due.

Every payment that was completed gets one invoice, and money that went back a credit note each time, as soon
as billing details are on file. Asking again issues nothing anew.

Documents are issued under the write lock, which every writer takes for its append anyway: the number, the
event and the stored document are one transaction. The version of the series is the backstop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Protocol, cast
from uuid import UUID

import msgspec

from domain.aggregate import Event
from domain.audit_facts import BillingDetailsChanged
from domain.billing import BillingDetails, checked, digest_of_details
from domain.errors import BillingDetailsMissing, LedgerError, NothingToInvoice, StoreUnavailable
from domain.facts import Request
from domain.identity import payment_stream
from domain.invoice import InvoiceSeries, series_at
from domain.invoice_documents import (
    DocumentKind,
    InvoiceDocument,
    Seller,
    Wording,
    decode_document,
)
from domain.invoice_writing import credit_note_of, invoice_of
from domain.ledger import Ledger, Recorded
from domain.ports import Once, Store
from domain.recording import Result
from domain.sale import Sale, sale_of

DUE_AT_ONCE: Final = 100
"""So many payments at most have their documents issued in one go."""


class BillingOnFile(msgspec.Struct, frozen=True):
    """Billing details, and who put them on file when."""

    details: BillingDetails
    changed_at: datetime
    changed_by: str | None


class Papers(Protocol):
    """Billing details and documents, stored beside the log.

    What is written inside `Store.exclusive` is in one transaction with the events.
    """

    def new_salt(self) -> bytes:
        """Return randomness to digest billing details with: erased together, the digest tells nothing."""

    def billing_details(self, organisation_id: str) -> BillingOnFile | None:
        """Return the billing details on file."""

    def put_billing_details(self, organisation_id: str, on_file: BillingOnFile, salt: bytes) -> None:
        """Put billing details on file, in place of those there."""

    def erase_billing_details(self, organisation_id: str) -> bool:
        """Take billing details off the file; tell whether there were any."""

    def documents_of(self, payment_id: str) -> Sequence[bytes]:
        """Return the documents of a payment as they are stored, oldest first."""

    def remark_on(self, payment_id: str) -> str | None:
        """Return what was written about a custom payment: what it is for."""

    def add_document(self, document: InvoiceDocument, stored: bytes) -> None:
        """Store a document."""

    def due(self, organisation_id: str | None, limit: int) -> Sequence[tuple[str, str]]:
        """Return organisations and payments that lack a document and can have it, oldest first."""


class _Events(Store, Protocol):
    """The event store, as the library sees it too."""

    def get(
        self,
        originator_id: UUID,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Iterable[Event]: ...


class Issued(msgspec.Struct, frozen=True):
    """What `issue_due` did: documents, and the payments it failed at."""

    documents: list[InvoiceDocument]
    failures: list[tuple[str, LedgerError]]


class Invoicing:
    """Billing details and invoices of all organisations."""

    def __init__(self, ledger: Ledger, papers: Papers, seller: Seller, wording: Wording) -> None:
        self._ledger = ledger
        self._events = cast(_Events, ledger.events)
        self._papers = papers
        self._seller = seller
        self._wording = wording

    def change_billing_details(
        self,
        organisation_id: str,
        details: BillingDetails,
        *,
        request: Request,
        once: Once | None = None,
    ) -> tuple[BillingDetails, Result[Recorded]]:
        """Put billing details on file; return them as they are kept.

        Raises:
            OrganisationUnknown, IdempotencyConflict, StoreUnavailable.
            InvalidInput: something of them cannot be right.
        """
        kept = checked(details)
        salt = self._papers.new_salt()
        with self._events.exclusive():
            result = self._note(organisation_id, digest_of_details(kept, salt), request, once)
            if not result.repeated:
                on_file = BillingOnFile(kept, request.at, request.actor)
                self._papers.put_billing_details(organisation_id, on_file, salt)
        return kept, result

    def erase_billing_details(self, organisation_id: str, *, request: Request) -> None:
        """Take billing details off the file, if any are. Invoices keep their own copies, as the law demands.

        Raises:
            OrganisationUnknown, StoreUnavailable.
        """
        with self._events.exclusive():
            self._ledger.organisation(organisation_id)
            if self._papers.erase_billing_details(organisation_id):
                self._note(organisation_id, None, request)

    def issue(self, organisation_id: str, payment_id: str, *, request: Request) -> list[InvoiceDocument]:
        """Issue what a payment lacks; return its invoice, and its credit notes behind it.

        Raises:
            OrganisationUnknown, StoreUnavailable, PriceVersionUnknown.
            NothingToInvoice: the organisation has no such payment, or it is not completed.
            BillingDetailsMissing: they are needed for the invoice, and not on file.
        """
        return self._issue(organisation_id, payment_id, request)[0]

    def issue_due(self, organisation_id: str | None, *, request: Request) -> Issued:
        """Issue what payments lack, of one organisation or all: at most `DUE_AT_ONCE` payments.

        Payments are found by their projection, so the newest may be missing. One that fails keeps no other
        from its invoice.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        issued = Issued([], [])
        for owner, payment_id in self._papers.due(organisation_id, DUE_AT_ONCE):
            try:
                documents, before = self._issue(owner, payment_id, request)
                issued.documents.extend(documents[before:])
            except StoreUnavailable:
                raise
            except LedgerError as error:
                issued.failures.append((payment_id, error))
        return issued

    def _issue(
        self, organisation_id: str, payment_id: str, request: Request
    ) -> tuple[list[InvoiceDocument], int]:
        """Return the documents of a payment, and how many of them there were before."""
        sale = sale_of(event.fact for event in self._events.get(payment_stream(payment_id)))
        if sale is None or sale.terms.organisation_id != organisation_id:
            self._ledger.organisation(organisation_id)
            raise NothingToInvoice(f"the payment {payment_id!r} is not completed")
        documents = self._documents(payment_id)
        before = len(documents)
        if before < 1 + len(sale.given_back):
            with self._events.exclusive():
                documents = self._documents(payment_id)
                before = len(documents)
                self._issue_missing(sale, documents, request)
        return documents, before

    def _note(
        self, organisation_id: str, digest: str | None, request: Request, once: Once | None = None
    ) -> Result[Recorded]:
        fact = BillingDetailsChanged(request.at, request.actor, request.cause, digest)
        return self._ledger.note(organisation_id, fact, once=once)

    def _documents(self, payment_id: str) -> list[InvoiceDocument]:
        return [decode_document(stored) for stored in self._papers.documents_of(payment_id)]

    def _issue_missing(self, sale: Sale, documents: list[InvoiceDocument], request: Request) -> None:
        """Issue what is not among the documents, and put it there. The write lock is held."""
        if not documents:
            on_file = self._papers.billing_details(sale.terms.organisation_id)
            if on_file is None:
                raise BillingDetailsMissing
            prices = self._ledger.prices.edition(sale.terms.price_version)
            series = self._series(DocumentKind.INVOICE, request)
            heading = series.heading(request.at)
            invoice = invoice_of(
                sale,
                on_file.details,
                seller=self._seller,
                prices=prices,
                heading=heading,
                wording=self._wording,
                remark=self._papers.remark_on(sale.terms.payment_id),
            )
            documents.append(self._record(series, invoice, request))
        noted = {document.correction.refund_id for document in documents if document.correction}
        for given_back in sale.given_back:
            if given_back.refund_id not in noted:
                series = self._series(DocumentKind.CREDIT_NOTE, request)
                heading = series.heading(request.at)
                note = credit_note_of(documents[0], sale, given_back, heading, self._wording)
                documents.append(self._record(series, note, request))

    def _series(self, kind: DocumentKind, request: Request) -> InvoiceSeries:
        seller = self._seller
        name = series_at(seller.prefix, kind, seller.time_zone, request.at)
        last: Event | None = next(iter(self._events.get(name.stream, desc=True, limit=1)), None)
        return InvoiceSeries(name, seller.time_zone, last)

    def _record(self, series: InvoiceSeries, document: InvoiceDocument, request: Request) -> InvoiceDocument:
        stored = series.issue(document, request)
        self._events.append(series.collect_events(), once=None, answer=b"")
        self._papers.add_document(document, stored)
        return document
