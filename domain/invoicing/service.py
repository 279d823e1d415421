"""Commands on invoices: change billing details, and issue invoices and credit notes.

As soon as billing details are on file, every completed payment gets one invoice, and each of its refunds gets
one credit note. A repeat issues nothing twice.

Documents are issued under the write lock, which every writer takes for its append anyway. So the number, the
event and the stored document are one transaction. If two writers got the same number, the version of the
series would refuse the second one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from domain.credits.audit_events import BillingDetailsChanged
from domain.credits.command_result import CommandResult
from domain.credits.commands import CreditCommands
from domain.invoicing.billing_details import BillingDetails, billing_details_digest, validated
from domain.invoicing.document_builder import credit_note_of, invoice_of
from domain.invoicing.documents import (
    DocumentKind,
    InvoiceDocument,
    InvoiceText,
    Seller,
    decode_document,
)
from domain.invoicing.errors import PaymentNotInvoiceable
from domain.invoicing.invoice_series import InvoiceSeries, series_at
from domain.invoicing.ports import BillingDocumentStore, StoredBillingDetails
from domain.invoicing.sale import Sale, sale_of
from domain.payments.errors import BillingDetailsMissing
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import LedgerError, StoreUnavailable
from domain.shared.event_store import IdempotencyKey
from domain.shared.stream_keys import payment_stream

DUE_BATCH_SIZE: Final = 100
"""How many payments `issue_due` handles at most."""


class IssueResult(msgspec.Struct, frozen=True):
    """What `issue_due` did: the documents issued, and for each payment that failed, its id and error."""

    documents: list[InvoiceDocument]
    failures: list[tuple[str, LedgerError]]


class Invoicing:
    """Commands on billing details and invoices of all organisations."""

    def __init__(
        self,
        commands: CreditCommands,
        document_store: BillingDocumentStore,
        seller: Seller,
        invoice_text: InvoiceText,
    ) -> None:
        self._commands = commands
        self._ledger = commands.ledger
        self._store = commands.ledger.runner.store
        self._document_store = document_store
        self._seller = seller
        self._invoice_text = invoice_text

    def change_billing_details(
        self,
        organisation_id: str,
        details: BillingDetails,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> tuple[BillingDetails, RecordedResult[CommandResult]]:
        """Store billing details; return them in the form that is stored.

        Raises:
            OrganisationNotFound, IdempotencyConflict, StoreUnavailable.
            InvalidInput: a field cannot be right.
        """
        kept = validated(details)
        salt = self._document_store.new_salt()
        with self._store.exclusive():
            result = self._record_audit_event(
                organisation_id, billing_details_digest(kept, salt), context, idempotency_key
            )
            if not result.repeated:
                on_file = StoredBillingDetails(kept, context.at, context.actor)
                self._document_store.put_billing_details(organisation_id, on_file, salt)
        return kept, result

    def erase_billing_details(self, organisation_id: str, *, context: CommandContext) -> None:
        """Erase billing details, if there are any. Invoices keep their own copies: the law demands it.

        Raises:
            OrganisationNotFound, StoreUnavailable.
        """
        with self._store.exclusive():
            self._ledger.organisation(organisation_id)
            if self._document_store.erase_billing_details(organisation_id):
                self._record_audit_event(organisation_id, None, context)

    def issue(
        self, organisation_id: str, payment_id: str, *, context: CommandContext
    ) -> list[InvoiceDocument]:
        """Issue the missing documents of a payment; return all of them: the invoice, then the credit notes.

        Raises:
            OrganisationNotFound, StoreUnavailable, PriceVersionNotFound.
            PaymentNotInvoiceable: the organisation has no such payment, or it is not completed.
            BillingDetailsMissing: the invoice is missing, and no billing details are on file.
        """
        return self._issue(organisation_id, payment_id, context)[0]

    def issue_due(self, organisation_id: str | None, *, context: CommandContext) -> IssueResult:
        """Issue the missing documents of one organisation or of all, for at most `DUE_BATCH_SIZE` payments.

        Payments are found in their projection, so the newest ones may come later. A payment that fails does
        not stop the others.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        issued = IssueResult([], [])
        for owner, payment_id in self._document_store.list_due_payments(organisation_id, DUE_BATCH_SIZE):
            try:
                documents, before = self._issue(owner, payment_id, context)
                issued.documents.extend(documents[before:])
            except StoreUnavailable:
                raise
            except LedgerError as error:
                issued.failures.append((payment_id, error))
        return issued

    def _issue(
        self, organisation_id: str, payment_id: str, context: CommandContext
    ) -> tuple[list[InvoiceDocument], int]:
        """Issue the missing documents of a payment; return all of them, and how many there were before."""
        sale = sale_of(envelope.event for envelope in self._store.get(payment_stream(payment_id)))
        if sale is None or sale.terms.organisation_id != organisation_id:
            self._ledger.organisation(organisation_id)
            raise PaymentNotInvoiceable(f"the payment {payment_id!r} is not completed")
        documents = self._documents(payment_id)
        before = len(documents)
        if before < 1 + len(sale.refunds):
            with self._store.exclusive():
                documents = self._documents(payment_id)
                before = len(documents)
                self._issue_missing(sale, documents, context)
        return documents, before

    def _record_audit_event(
        self,
        organisation_id: str,
        digest: str | None,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        event = BillingDetailsChanged(*context.event_header, digest)
        return self._commands.record_audit_event(organisation_id, event, idempotency_key=idempotency_key)

    def _documents(self, payment_id: str) -> list[InvoiceDocument]:
        return [decode_document(stored) for stored in self._document_store.documents_of(payment_id)]

    def _issue_missing(self, sale: Sale, documents: list[InvoiceDocument], context: CommandContext) -> None:
        """Issue the documents that are missing, and add them to the list. The caller holds the write lock."""
        if not documents:
            documents.append(self._issue_invoice(sale, context))
        credited_refund_ids = {document.correction.refund_id for document in documents if document.correction}
        for refund in sale.refunds:
            if refund.refund_id not in credited_refund_ids:
                series = self._series(DocumentKind.CREDIT_NOTE, context)
                header = series.next_header(context.at)
                note = credit_note_of(documents[0], sale, refund, header, self._invoice_text)
                documents.append(self._append_document(series, note, context))

    def _issue_invoice(self, sale: Sale, context: CommandContext) -> InvoiceDocument:
        on_file = self._document_store.billing_details(sale.terms.organisation_id)
        if on_file is None:
            raise BillingDetailsMissing
        prices = self._ledger.prices.edition(sale.terms.price_version)
        series = self._series(DocumentKind.INVOICE, context)
        invoice = invoice_of(
            sale,
            on_file.details,
            seller=self._seller,
            prices=prices,
            header=series.next_header(context.at),
            invoice_text=self._invoice_text,
            remark=self._document_store.find_remark(sale.terms.payment_id),
        )
        return self._append_document(series, invoice, context)

    def _series(self, kind: DocumentKind, context: CommandContext) -> InvoiceSeries:
        seller = self._seller
        name = series_at(seller.prefix, kind, seller.time_zone, context.at)
        last = next(iter(self._store.get(name.stream, desc=True, limit=1)), None)
        return InvoiceSeries(name, seller.time_zone, last)

    def _append_document(
        self, series: InvoiceSeries, document: InvoiceDocument, context: CommandContext
    ) -> InvoiceDocument:
        stored = series.issue(document, context)
        self._store.append(series.collect_events(), idempotency_key=None, response=b"")
        self._document_store.add_document(document, stored)
        return document
