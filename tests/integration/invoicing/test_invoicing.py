"""Issuing of invoices and credit notes, which never change afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest

from domain.credits.errors import OrganisationNotFound
from domain.invoicing.billing_details import Address
from domain.invoicing.documents import DocumentKind, document_digest
from domain.invoicing.errors import PaymentNotInvoiceable
from domain.payments.errors import BillingDetailsMissing
from domain.shared.errors import (
    DuplicateKey,
    IdempotencyConflict,
    InvalidInput,
    PriceVersionNotFound,
)
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Currency
from tests.integration.invoicing.conftest import (
    DETAILS,
    ORG,
    InvoicingEnvironment,
    invoicing_of,
    request,
)
from tests.sales import NOON


@pytest.fixture
def billed(invoicing_env: InvoicingEnvironment) -> InvoicingEnvironment:
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    return invoicing_env


class TestBillingDetails:
    def test_the_event_has_actor_and_time_but_no_details(self, invoicing_env: InvoicingEnvironment) -> None:
        kept, result = invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
        assert kept == DETAILS
        ((state,),) = invoicing_env.rows(
            "SELECT state FROM ledger.events WHERE topic = 'billing_details_changed.v1'"
        )
        recorded_at, actor, cause, digest = msgspec.json.decode(bytes(state))
        assert (recorded_at, actor, cause) == ("2026-11-23T12:00:00Z", "u-1", "request-1")
        assert len(digest) == 64
        assert result.value.version == 3
        for detail in (DETAILS.name, DETAILS.email, "Mumbai", DETAILS.tax_id):
            assert not invoicing_env.rows(
                "SELECT 1 FROM ledger.events WHERE state::text LIKE %s", f"%{detail}%"
            )

    def test_the_same_details_again_have_another_digest(self, billed: InvoicingEnvironment) -> None:
        billed.invoicing.change_billing_details(ORG, DETAILS, context=request())
        states = billed.rows("SELECT state FROM ledger.events WHERE topic = 'billing_details_changed.v1'")
        first, second = (msgspec.json.decode(bytes(state))[3] for (state,) in states)
        assert first != second, "otherwise somebody could check a guess of the details"

    def test_invalid_details_change_nothing(self, invoicing_env: InvoicingEnvironment) -> None:
        wrong = msgspec.structs.replace(DETAILS, tax_id="27AAPFU0939F1ZW")
        with pytest.raises(InvalidInput, match="a character of it is mistyped"):
            invoicing_env.invoicing.change_billing_details(ORG, wrong, context=request())
        assert invoicing_env.rows("SELECT 1 FROM ledger.billing_details") == []
        assert invoicing_env.ledger.organisation(ORG).version == 2

    def test_an_organisation_that_is_not_open_has_none(self, invoicing_env: InvoicingEnvironment) -> None:
        with pytest.raises(OrganisationNotFound):
            invoicing_env.invoicing.change_billing_details("org-0", DETAILS, context=request())
        assert invoicing_env.rows("SELECT 1 FROM ledger.billing_details") == []

    def test_a_request_counts_once(self, invoicing_env: InvoicingEnvironment) -> None:
        idempotency_key = IdempotencyKey("PUT billing-details", "key-1", b"asked")
        other = msgspec.structs.replace(DETAILS, name="Another Ltd")
        invoicing_env.invoicing.change_billing_details(
            ORG, DETAILS, context=request(), idempotency_key=idempotency_key
        )
        invoicing_env.invoicing.change_billing_details(ORG, other, context=request())
        _, again = invoicing_env.invoicing.change_billing_details(
            ORG, DETAILS, context=request(), idempotency_key=idempotency_key
        )
        assert again.repeated
        assert invoicing_env.rows("SELECT details ->> 'name' FROM ledger.billing_details") == [
            ("Another Ltd",)
        ]
        with pytest.raises(IdempotencyConflict):
            invoicing_env.invoicing.change_billing_details(
                ORG,
                other,
                context=request(),
                idempotency_key=msgspec.structs.replace(idempotency_key, request_digest=b"other"),
            )

    def test_they_can_be_erased_and_invoices_are_kept(self, billed: InvoicingEnvironment) -> None:
        billed.pay("payment-1")
        (invoice,) = billed.invoicing.issue(ORG, "payment-1", context=request())
        billed.invoicing.erase_billing_details(ORG, context=request())
        billed.invoicing.erase_billing_details(ORG, context=request())
        assert billed.rows("SELECT 1 FROM ledger.billing_details") == []
        assert billed.ledger.organisation(ORG).version == 4, "one erasure is one event"
        assert billed.invoicing.issue(ORG, "payment-1", context=request()) == [invoice]


class TestIssuing:
    def test_a_payment_waits_for_billing_details(self, invoicing_env: InvoicingEnvironment) -> None:
        invoicing_env.pay("payment-1")
        with pytest.raises(BillingDetailsMissing):
            invoicing_env.invoicing.issue(ORG, "payment-1", context=request())
        invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
        (invoice,) = invoicing_env.invoicing.issue(ORG, "payment-1", context=request())
        assert invoice.number == "CL/26-27/000001"
        assert invoice.total_in_words == "Rupees one thousand, seven hundred and seventy only"
        assert invoice.buyer.address.country_name == "India"

    def test_a_repeated_request_issues_nothing(self, billed: InvoicingEnvironment) -> None:
        billed.pay("payment-1")
        first = billed.invoicing.issue(ORG, "payment-1", context=request())
        later = billed.invoicing.issue(ORG, "payment-1", context=request(NOON + timedelta(days=400)))
        assert later == first
        assert billed.rows("SELECT count(*) FROM ledger.invoice_documents") == [(1,)]

    def test_later_edits_do_not_change_it(self, billed: InvoicingEnvironment) -> None:
        billed.pay("payment-1")
        (frozen,) = billed.invoicing.issue(ORG, "payment-1", context=request())
        moved = msgspec.structs.replace(
            DETAILS,
            name="New Name Ltd",
            tax_id=None,
            address=Address("DE", "", "Berlin", "10115", ("Weg 1",)),
        )
        billed.invoicing.change_billing_details(ORG, moved, context=request())
        assert billed.invoicing.issue(ORG, "payment-1", context=request()) == [frozen]
        billed.give_back("payment-1", "refund-1", 500, 75_000, 13_500)
        _, note = billed.invoicing.issue(ORG, "payment-1", context=request())
        assert note.buyer == frozen.buyer, "a credit note has the invoice's buyer"

    @pytest.mark.parametrize("payment_id", ["payment-1", "payment-0"])
    def test_an_unpaid_payment_has_no_invoice(self, billed: InvoicingEnvironment, payment_id: str) -> None:
        billed.pay("payment-1", organisation_id="org-of-somebody-else")
        with pytest.raises(PaymentNotInvoiceable):
            billed.invoicing.issue(ORG, payment_id, context=request())

    def test_a_missing_price_edition_is_named(self, billed: InvoicingEnvironment) -> None:
        billed.pay("payment-1", price_version="2031")
        with pytest.raises(PriceVersionNotFound, match="'2031'"):
            billed.invoicing.issue(ORG, "payment-1", context=request())
        assert billed.rows("SELECT 1 FROM ledger.events WHERE topic = 'invoice_issued.v1'") == []

    def test_the_event_proves_the_stored_document(self, billed: InvoicingEnvironment) -> None:
        billed.pay("payment-1")
        billed.invoicing.issue(ORG, "payment-1", context=request())
        ((state,),) = billed.rows("SELECT state FROM ledger.events WHERE topic = 'invoice_issued.v1'")
        ((document,),) = billed.rows("SELECT document FROM ledger.invoice_documents")
        assert msgspec.json.decode(bytes(state))[-1] == document_digest(document.encode())

    def test_a_new_financial_year_starts_a_new_series(self, billed: InvoicingEnvironment) -> None:
        last_of_march = datetime(2027, 3, 31, 18, 29, tzinfo=UTC)
        numbers = []
        for day, payment_id in enumerate(["payment-1", "payment-2", "payment-3"]):
            billed.pay(payment_id)
            at = last_of_march + timedelta(minutes=day)
            (invoice,) = billed.invoicing.issue(ORG, payment_id, context=request(at))
            numbers.append(invoice.number)
        assert numbers == ["CL/26-27/000001", "CL/27-28/000001", "CL/27-28/000002"]

    def test_an_invoice_in_dollars(self, billed: InvoicingEnvironment) -> None:
        billed.pay(
            "payment-1",
            currency=Currency.USD,
            unit_price_millionths=20_000,
            credits_minor=2_005,
            amount_minor=2_005,
            tax_minor=0,
        )
        (invoice,) = billed.invoicing.issue(ORG, "payment-1", context=request())
        assert invoice.total_in_words == "US dollars twenty and five cents only"


class TestCreditNotes:
    def test_each_refund_has_its_own_credit_note(self, billed: InvoicingEnvironment) -> None:
        billed.pay("payment-1")
        billed.give_back("payment-1", "refund-1", 333, 49_950, 8_991)
        documents = billed.invoicing.issue(ORG, "payment-1", context=request())
        assert [document.number for document in documents] == ["CL/26-27/000001", "CLC/26-27/000001"]
        billed.give_back("payment-1", "refund-2", 667, 100_050, 18_009)
        documents = billed.invoicing.issue(ORG, "payment-1", context=request())
        assert [document.kind for document in documents] == [
            DocumentKind.INVOICE,
            DocumentKind.CREDIT_NOTE,
            DocumentKind.CREDIT_NOTE,
        ]
        invoice, *notes = documents
        assert sum(note.total_minor for note in notes) == invoice.total_minor
        assert billed.invoicing.issue(ORG, "payment-1", context=request()) == documents

    def test_a_second_one_for_the_same_refund_is_refused_by_the_database(
        self, billed: InvoicingEnvironment
    ) -> None:
        billed.pay("payment-1")
        billed.invoicing.issue(ORG, "payment-1", context=request())
        billed.sql.execute("DELETE FROM ledger.invoice_documents")
        with pytest.raises(DuplicateKey):  # the event exists already, even if the document is gone
            billed.invoicing.issue(ORG, "payment-1", context=request())

    def test_the_service_cannot_change_what_was_issued(
        self, billed: InvoicingEnvironment, service_database: str
    ) -> None:
        billed.pay("payment-1")
        billed.invoicing.issue(ORG, "payment-1", context=request())
        with psycopg.connect(service_database) as connection:
            for statement in (
                "UPDATE ledger.invoice_documents SET document = ''",
                "DELETE FROM ledger.invoice_documents",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)  # type: ignore[arg-type]
                connection.rollback()


def test_two_processes_see_the_same_series(billed: InvoicingEnvironment, service_database: str) -> None:
    from infra.service.composition import open_ledger

    billed.pay("payment-1")
    billed.pay("payment-2")
    billed.invoicing.issue(ORG, "payment-1", context=request())
    with open_ledger(service_database, pool_size=2) as ledger:
        (invoice,) = invoicing_of(ledger).issue(ORG, "payment-2", context=request())
    assert invoice.number == "CL/26-27/000002"
