"""Findings of `audit check` for documents that a database owner has changed."""

from __future__ import annotations

import pytest

from projections.audit.invariants import check
from projections.audit.invoice_checks import check_invoices
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.integration.invoicing.conftest import DETAILS, ORG, InvoicingEnvironment, request


@pytest.fixture
def issued(invoicing_env: InvoicingEnvironment) -> InvoicingEnvironment:
    """Two invoices and a credit note."""
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    for payment_id in ("payment-1", "payment-2"):
        invoicing_env.pay(payment_id)
        invoicing_env.invoicing.issue(ORG, payment_id, context=request())
    invoicing_env.give_back("payment-1", "refund-1", 400, 60_000, 10_800)
    invoicing_env.invoicing.issue(ORG, "payment-1", context=request())
    return invoicing_env


def findings(invoicing_env: InvoicingEnvironment) -> list[str]:
    with invoicing_env.sql.transaction():
        return [finding.detail for finding in check_invoices(invoicing_env.sql)]


def test_unchanged_documents_have_no_findings(issued: InvoicingEnvironment, service_database: str) -> None:
    assert findings(issued) == []
    ProjectionRunner(service_database, ALL_PROJECTIONS).catch_up()
    assert [found for found in check(issued.sql) if found.check == "invoice"] == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            "UPDATE ledger.invoice_documents SET document = replace(document, 'Mumbai', 'Madras')"
            " WHERE number = 'CL/26-27/000002'",
            "CL/26-27/000002: the document is not the one that was issued",
        ),
        (
            "UPDATE ledger.invoice_documents SET total_minor = total_minor + 1"
            " WHERE number = 'CLC/26-27/000001'",
            "CLC/26-27/000001: the document is not the one that was issued",
        ),
        (
            "DELETE FROM ledger.invoice_documents WHERE number = 'CL/26-27/000001'",
            "CL/26-27/000001: the document is gone",
        ),
        (
            "INSERT INTO ledger.invoice_documents SELECT 'CL/26-27/000003', stream, 'payment-3', '',"
            " issued_at, total_minor, document FROM ledger.invoice_documents"
            " WHERE number = 'CL/26-27/000001'",
            "CL/26-27/000003: a document that the log does not have",
        ),
        (
            "UPDATE ledger.invoice_documents SET number = 'nonsense' WHERE number = 'CL/26-27/000001'",
            "nonsense: a document that the log does not have",
        ),
        (
            "ALTER TABLE ledger.events DISABLE TRIGGER USER;"
            " DELETE FROM ledger.events WHERE topic = 'invoice_issued.v1' AND originator_version = 1",
            "CL/26-27/000002 is event 2 of its series, not 1",
        ),
    ],
)
def test_every_change_is_found(issued: InvoicingEnvironment, change: str, found: str) -> None:
    issued.sql.execute(change.encode())
    assert found in findings(issued)
