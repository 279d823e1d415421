"""Invoices and credit notes: list them, read one, download one, issue one."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path
from starlette.responses import Response

from api.http.dependencies import POSITION_HEADER, Read, Write
from api.http.fields import Identifier, OrganisationId, PageCursor, PageLimit
from api.http.problems import responses
from api.http.responses import COMMON_PROBLEMS, DEFAULT_PAGE_LIMIT, read_responses
from api.http.routes import ReadRoute, StrictRoute
from api.invoicing.schemas import Invoice, Invoices, InvoiceSummary, IssuedInvoices
from domain.invoicing.invoice_series import number_of
from projections.invoicing import queries as invoice_queries
from projections.invoicing.queries import IssuedDocument

_ORGANISATION: Final = "/v1/organisations/{organisation_id}"
_PDF: Final = "application/pdf"

reads = APIRouter(
    prefix=f"{_ORGANISATION}/invoices",
    route_class=ReadRoute,
    tags=["Invoices"],
    responses={**read_responses(), **responses(*COMMON_PROBLEMS)},
)
writes = APIRouter(prefix=_ORGANISATION, route_class=StrictRoute, tags=["Invoices"])

InvoiceId = Annotated[
    str,
    Path(
        max_length=32,
        description="The number, with hyphens instead of slashes.",
        examples=["CL-26-27-000123"],
    ),
]
PaymentId = Annotated[Identifier, Path(description="The ledger's id of the payment.", examples=["payment-1"])]


@reads.get(
    "",
    operation_id="listInvoices",
    summary="Invoices",
    response_description="A page, newest first.",
)
def list_invoices(
    organisation_id: OrganisationId,
    read: Read,
    cursor: PageCursor = None,
    limit: PageLimit = DEFAULT_PAGE_LIMIT,
) -> Invoices:
    """List invoices and credit notes, newest first."""
    return Invoices.of(read.view(invoice_queries.invoices, organisation_id, cursor, limit))


@reads.get(
    "/{invoice_id}.pdf",
    operation_id="downloadInvoice",
    summary="Download an invoice",
    response_description="The PDF.",
    response_class=Response,
    responses={
        200: {
            **read_responses()[200],
            "content": {_PDF: {"schema": {"type": "string", "format": "binary"}}},
        },
        **responses("organisation-unknown", "invoice-unknown"),
    },
)
def download_invoice(organisation_id: OrganisationId, invoice_id: InvoiceId, read: Read) -> Response:
    """Return an invoice or a credit note as a one-page PDF. The same document always gives the same bytes."""
    issued = _issued(read, organisation_id, invoice_id)
    name = f'attachment; filename="{invoice_id}.pdf"'
    return Response(
        read.services.print_invoice(issued.document),
        media_type=_PDF,
        headers={"Content-Disposition": name, POSITION_HEADER: str(issued.position)},
    )


@reads.get(
    "/{invoice_id}",
    operation_id="getInvoice",
    summary="An invoice",
    response_description="The complete document.",
    responses=responses("organisation-unknown", "invoice-unknown"),
)
def get_invoice(organisation_id: OrganisationId, invoice_id: InvoiceId, read: Read) -> Invoice:
    """Return an invoice or a credit note as issued. Later changes of billing details do not change it."""
    issued = _issued(read, organisation_id, invoice_id)
    return Invoice.issued(issued.document, digest=issued.digest, position=issued.position)


@writes.post(
    "/payments/{payment_id}/invoice",
    operation_id="issueInvoice",
    summary="Issue the invoice of a payment",
    response_description="The invoice, then its credit notes.",
    responses=responses(*COMMON_PROBLEMS, "billing-details-missing", "nothing-to-invoice"),
)
def issue_invoice(organisation_id: OrganisationId, payment_id: PaymentId, write: Write) -> IssuedInvoices:
    """Issue the invoice of a completed payment, and the credit notes of its refunds, immediately.

    Without this call they are issued automatically within moments. A repeat returns the same documents.
    """
    documents = write.services.invoicing.issue(organisation_id, payment_id, context=write.request)
    return IssuedInvoices(invoices=[InvoiceSummary.of(document) for document in documents])


def _issued(read: Read, organisation_id: str, invoice_id: str) -> IssuedDocument:
    return read.view(invoice_queries.invoice, organisation_id, number_of(invoice_id))
