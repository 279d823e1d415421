"""The invoice worker finds due documents in the projection of payments, and issues them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event

import psycopg
import pytest

from domain.credits.commands import CreditCommands
from domain.invoicing.service import IssueResult
from domain.payments.refunds import AttemptRefund, CreditRefund, FeeRefund
from domain.shared.errors import StoreUnavailable
from infra.invoicing.document_store import PostgresBillingDocumentStore
from infra.invoicing.invoice_worker import InvoiceWorker
from infra.migrations.migrate import migrations
from infra.service.composition import credits_of
from projections.audit.row_comparison import compare_with_log
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.integration.invoicing.conftest import DETAILS, ORG, InvoicingEnvironment, request
from tests.integration.payments.test_payments import PRO, PaymentEnvironment
from tests.sales import NOON


@pytest.fixture
def payment_env(invoicing_env: InvoicingEnvironment, monkeypatch: pytest.MonkeyPatch) -> PaymentEnvironment:
    monkeypatch.setattr(
        CreditCommands, "open_organisation", lambda *_, **__: None
    )  # the organisation is open already
    return PaymentEnvironment(invoicing_env.ledger)


@pytest.fixture
def due(invoicing_env: InvoicingEnvironment, service_database: str) -> Callable[[], list[str]]:
    """A function that issues all due documents and returns their numbers."""

    def issue() -> list[str]:
        ProjectionRunner(service_database, ALL_PROJECTIONS).catch_up()
        issued = invoicing_env.invoicing.issue_due(None, context=request())
        assert issued.failures == []
        return [document.number for document in issued.documents]

    return issue


def test_a_completed_payment_with_billing_details_is_invoiced(
    invoicing_env: InvoicingEnvironment, payment_env: PaymentEnvironment, due: Callable[[], list[str]]
) -> None:
    pending = payment_env.order()
    paid = payment_env.buy()
    assert due() == [], "it waits for billing details"
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    assert due() == ["CL/26-27/000001"]
    assert due() == []
    payment_env.pay(pending)
    assert due() == ["CL/26-27/000002"]
    (invoice,) = invoicing_env.invoicing.issue(ORG, paid.terms.payment_id, context=request())
    assert (invoice.total_minor, invoice.gateway) == (177_000, "bookpay")


def test_a_refund_has_one_credit_note(
    invoicing_env: InvoicingEnvironment, payment_env: PaymentEnvironment, due: Callable[[], list[str]]
) -> None:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    paid = payment_env.buy()
    due()
    payment_env.gateway.refunds_pend = True
    payment_env.refund(paid, 100)
    assert due() == [], "the gateway has not refunded it yet"
    payment_env.gateway.refunds_pend = False
    payment_env.follow_up(paid)
    assert due() == ["CLC/26-27/000001"]
    payment_env.refund(paid)
    assert due() == ["CLC/26-27/000002"]
    invoice, *notes = invoicing_env.invoicing.issue(ORG, paid.terms.payment_id, context=request())
    for part in ("amount_minor", "tax_minor", "total_minor"):
        assert sum(getattr(note, part) for note in notes) == getattr(invoice, part)
    invoicing_env.invoicing.erase_billing_details(ORG, context=request())
    assert due() == []


def test_a_fee_refunded_in_parts_is_credited_exactly(
    invoicing_env: InvoicingEnvironment, payment_env: PaymentEnvironment, due: Callable[[], list[str]]
) -> None:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    paid = payment_env.buy(1_000, PRO)
    due()
    for part in (FeeRefund(333_333), CreditRefund(), FeeRefund(666_667)):
        payment_env.give_back(paid, part)
    assert len(due()) == 3
    invoice, *notes = invoicing_env.invoicing.issue(ORG, paid.terms.payment_id, context=request())
    assert [note.lines[0].description for note in notes] == [
        "Pro subscription refunded",
        "Unused photo processing credits returned",
        "Pro subscription refunded",
    ]
    for part_of in ("amount_minor", "tax_minor", "total_minor"):
        assert sum(getattr(note, part_of) for note in notes) == getattr(invoice, part_of)


def test_a_refund_of_an_unexpected_attempt_has_no_document(
    invoicing_env: InvoicingEnvironment, payment_env: PaymentEnvironment, due: Callable[[], list[str]]
) -> None:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    paid = payment_env.buy()
    second = payment_env.gateway.pay(str(paid.order_id))
    payment_env.give_back(payment_env.record_attempt(second), AttemptRefund(second.gateway_payment_id))
    assert due() == ["CL/26-27/000001"]
    assert len(invoicing_env.invoicing.issue(ORG, paid.terms.payment_id, context=request())) == 1


def test_new_billing_details_count_immediately_for_their_organisation(
    invoicing_env: InvoicingEnvironment, payment_env: PaymentEnvironment, service_database: str
) -> None:
    payment_env.buy()
    ProjectionRunner(service_database, ALL_PROJECTIONS).catch_up()
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    assert invoicing_env.invoicing.issue_due(None, context=request()).documents == [], "not projected yet"
    assert len(invoicing_env.invoicing.issue_due(ORG, context=request()).documents) == 1


def test_due_documents_of_payments_before_the_migration(
    invoicing_env: InvoicingEnvironment,
    payment_env: PaymentEnvironment,
    due: Callable[[], list[str]],
    migrated_database: str,
) -> None:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    payment_env.refund(payment_env.buy(), 100)
    assert len(due()) == 2
    payment_env.refund(payment_env.buy(), 100)
    due()
    invoicing_env.invoicing.erase_billing_details(ORG, context=request())
    waiting = payment_env.buy()
    assert due() == []
    (migration,) = [each for each in migrations() if each.name == "large_books"]
    indexes = re.findall(r"CREATE INDEX (\w+)", migration.text)
    with psycopg.connect(migrated_database, autocommit=True) as owner:
        owner.execute(f"DROP INDEX {', '.join(f'projections.{name}' for name in indexes)}".encode())
        owner.execute(
            "DROP TABLE projections.billing; ALTER TABLE projections.payments"
            " DROP COLUMN invoiced, DROP COLUMN credited_minor, DROP COLUMN billable"
        )
        with owner.transaction():
            owner.execute(migration.text.encode())
    assert compare_with_log(migrated_database) == []
    assert due() == []
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    assert len(due()) == 1
    assert invoicing_env.invoicing.issue(ORG, waiting.terms.payment_id, context=request())


def test_only_documents_of_the_given_organisation_are_issued(
    invoicing_env: InvoicingEnvironment, payment_env: PaymentEnvironment, service_database: str
) -> None:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    payment_env.buy()
    ProjectionRunner(service_database, ALL_PROJECTIONS).catch_up()
    assert invoicing_env.invoicing.issue_due("org-other", context=request()).documents == []
    assert len(invoicing_env.invoicing.issue_due(ORG, context=request()).documents) == 1


def test_purchases_recorded_by_staff_have_no_invoice(
    invoicing_env: InvoicingEnvironment, due: Callable[[], list[str]]
) -> None:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    credits_of(invoicing_env.ledger).commands.record_purchase(
        ORG, 1_000, payment_id="by-hand", order_id="o", gateway="razorpay", context=request()
    )
    assert due() == []


def test_an_invoice_of_a_custom_payment_has_its_remark(
    invoicing_env: InvoicingEnvironment, payment_env: PaymentEnvironment
) -> None:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    custom = payment_env.payments.begin_custom(
        ORG,
        250_000,
        "On-site printing",
        "bookpay",
        payment_id="payment-custom",
        context=payment_env.request(),
    ).payment
    payment_env.pay(custom)
    (invoice,) = invoicing_env.invoicing.issue(ORG, "payment-custom", context=request())
    assert [line.description for line in invoice.lines] == ["Custom payment"]
    assert invoice.lines[0].amount_minor == invoice.amount_minor == 250_000
    assert "For: On-site printing" in invoice.notes


def test_a_lost_database_is_not_a_failure_of_a_payment(
    invoicing_env: InvoicingEnvironment, service_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    invoicing_env.pay("payment-1")
    ProjectionRunner(service_database, ALL_PROJECTIONS).catch_up()

    def lost(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(PostgresBillingDocumentStore, "documents_of", lost)
    with pytest.raises(StoreUnavailable):
        invoicing_env.invoicing.issue_due(None, context=request())


class TestInvoiceWorker:
    def test_it_issues_and_logs_failures(
        self, invoicing_env: InvoicingEnvironment, service_database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
        invoicing_env.pay("payment-1", price_version="2031")
        invoicing_env.pay("payment-2", at=NOON)
        ProjectionRunner(service_database, ALL_PROJECTIONS).catch_up()
        clerk = InvoiceWorker(invoicing_env.invoicing, lambda: datetime.now(UTC))
        with caplog.at_level(logging.INFO):
            assert clerk.issue_due() is True
        assert invoicing_env.rows("SELECT payment_id FROM ledger.invoice_documents") == [("payment-2",)]
        assert "payment payment-1 has no invoice: the price book has no edition '2031'" in caplog.text
        for personal in (DETAILS.name, DETAILS.email):
            assert personal not in caplog.text

    def test_it_continues_when_the_database_is_back(
        self,
        invoicing_env: InvoicingEnvironment,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("infra.invoicing.invoice_worker.EVERY_S", 0.01)
        stop, looks = Event(), iter([StoreUnavailable("gone"), IssueResult([], [])])

        def issue_due(*_: object, **__: object) -> IssueResult:
            look = next(looks)
            if isinstance(look, Exception):
                raise look
            stop.set()
            return look

        monkeypatch.setattr(invoicing_env.invoicing, "issue_due", issue_due)
        InvoiceWorker(invoicing_env.invoicing, lambda: NOON).run(stop)
        assert stop.is_set()
        assert "invoices cannot be issued: gone" in caplog.text
