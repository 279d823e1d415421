"""What becomes due by itself: payments as the use cases of payments make them, found by their projection."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event

import psycopg
import pytest

from domain.errors import StoreUnavailable
from domain.invoicing import Issued
from domain.payment_refunds import AttemptBack, CreditsBack, FeeBack
from infra.invoice_clerk import InvoiceClerk
from infra.migrate import migrations
from infra.papers import PostgresPapers
from projections.comparison import compare_with_log
from projections.runner import ProjectionRunner
from tests.integration.invoices.conftest import DETAILS, ORG, Office, request
from tests.integration.test_payments import PRO, Shop
from tests.sales import NOON


@pytest.fixture
def shop(office: Office, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(office.ledger, "open_organisation", lambda *_, **__: None)  # it is open already
    return Shop(office.ledger)


@pytest.fixture
def due(office: Office, service_database: str) -> Callable[[], list[str]]:
    """A function that issues what is due and returns the numbers of what was issued."""

    def issue() -> list[str]:
        ProjectionRunner(service_database).catch_up()
        issued = office.invoicing.issue_due(None, request=request())
        assert issued.failures == []
        return [document.number for document in issued.documents]

    return issue


def test_a_payment_is_invoiced_once_it_is_completed_and_billed(
    office: Office, shop: Shop, due: Callable[[], list[str]]
) -> None:
    pending = shop.order()
    paid = shop.buy()
    assert due() == [], "it waits for billing"
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    assert due() == ["CL/26-27/000001"]
    assert due() == []
    shop.pay(pending)
    assert due() == ["CL/26-27/000002"]
    (invoice,) = office.invoicing.issue(ORG, paid.terms.payment_id, request=request())
    assert (invoice.total_minor, invoice.gateway) == (177_000, "bookpay")


def test_money_that_went_back_is_credited_once(
    office: Office, shop: Shop, due: Callable[[], list[str]]
) -> None:
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    paid = shop.buy()
    due()
    shop.gateway.refunds_pend = True
    shop.refund(paid, 100)
    assert due() == [], "the gateway has not given it back yet"
    shop.gateway.refunds_pend = False
    shop.attend(paid)
    assert due() == ["CLC/26-27/000001"]
    shop.refund(paid)
    assert due() == ["CLC/26-27/000002"]
    invoice, *notes = office.invoicing.issue(ORG, paid.terms.payment_id, request=request())
    for part in ("amount_minor", "tax_minor", "total_minor"):
        assert sum(getattr(note, part) for note in notes) == getattr(invoice, part)
    office.invoicing.erase_billing_details(ORG, request=request())
    assert due() == []


def test_a_fee_that_went_back_in_parts_is_credited_exactly(
    office: Office, shop: Shop, due: Callable[[], list[str]]
) -> None:
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    paid = shop.buy(1_000, PRO)
    due()
    for part in (FeeBack(333_333), CreditsBack(), FeeBack(666_667)):
        shop.give_back(paid, part)
    assert len(due()) == 3
    invoice, *notes = office.invoicing.issue(ORG, paid.terms.payment_id, request=request())
    assert [note.lines[0].description for note in notes] == [
        "Pro subscription refunded",
        "Unused photo processing credits returned",
        "Pro subscription refunded",
    ]
    for part_of in ("amount_minor", "tax_minor", "total_minor"):
        assert sum(getattr(note, part_of) for note in notes) == getattr(invoice, part_of)


def test_what_an_odd_attempt_took_goes_back_without_paper(
    office: Office, shop: Shop, due: Callable[[], list[str]]
) -> None:
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    paid = shop.buy()
    second = shop.gateway.pay(str(paid.order_id))
    shop.give_back(shop.learn(second), AttemptBack(second.gateway_payment_id))
    assert due() == ["CL/26-27/000001"]
    assert len(office.invoicing.issue(ORG, paid.terms.payment_id, request=request())) == 1


def test_billing_details_put_on_file_a_moment_ago_count_for_their_organisation(
    office: Office, shop: Shop, service_database: str
) -> None:
    shop.buy()
    ProjectionRunner(service_database).catch_up()
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    assert office.invoicing.issue_due(None, request=request()).documents == [], "not projected yet"
    assert len(office.invoicing.issue_due(ORG, request=request()).documents) == 1


def test_what_is_due_is_known_of_payments_from_before_it_was_projected(
    office: Office, shop: Shop, due: Callable[[], list[str]], migrated_database: str
) -> None:
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    shop.refund(shop.buy(), 100)
    assert len(due()) == 2
    shop.refund(shop.buy(), 100)
    due()
    office.invoicing.erase_billing_details(ORG, request=request())
    waiting = shop.buy()
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
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    assert len(due()) == 1
    assert office.invoicing.issue(ORG, waiting.terms.payment_id, request=request())


def test_other_organisations_are_left_alone_where_one_is_asked_for(
    office: Office, shop: Shop, service_database: str
) -> None:
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    shop.buy()
    ProjectionRunner(service_database).catch_up()
    assert office.invoicing.issue_due("org-other", request=request()).documents == []
    assert len(office.invoicing.issue_due(ORG, request=request()).documents) == 1


def test_purchases_that_staff_recorded_have_no_invoice(office: Office, due: Callable[[], list[str]]) -> None:
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    office.ledger.record_purchase(
        ORG, 1_000, payment_id="by-hand", order_id="o", gateway="razorpay", request=request()
    )
    assert due() == []


def test_a_custom_payment_says_what_it_is_for(office: Office, shop: Shop) -> None:
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    custom = shop.payments.begin_custom(
        ORG, 250_000, "On-site printing", "bookpay", payment_id="payment-custom", request=shop.request()
    ).payment
    shop.pay(custom)
    (invoice,) = office.invoicing.issue(ORG, "payment-custom", request=request())
    assert [line.description for line in invoice.lines] == ["Custom payment"]
    assert invoice.lines[0].amount_minor == invoice.amount_minor == 250_000
    assert "For: On-site printing" in invoice.notes


def test_a_lost_database_is_no_payments_fault(
    office: Office, service_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.invoicing.change_billing_details(ORG, DETAILS, request=request())
    office.pay("payment-1")
    ProjectionRunner(service_database).catch_up()

    def lost(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(PostgresPapers, "documents_of", lost)
    with pytest.raises(StoreUnavailable):
        office.invoicing.issue_due(None, request=request())


class TestTheClerk:
    def test_it_issues_and_says_what_failed(
        self, office: Office, service_database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        office.invoicing.change_billing_details(ORG, DETAILS, request=request())
        office.pay("payment-1", price_version="2031")
        office.pay("payment-2", at=NOON)
        ProjectionRunner(service_database).catch_up()
        clerk = InvoiceClerk(office.invoicing, lambda: datetime.now(UTC))
        with caplog.at_level(logging.INFO):
            assert clerk.issue_due() is True
        assert office.rows("SELECT payment_id FROM ledger.invoice_documents") == [("payment-2",)]
        assert "payment payment-1 has no invoice: the price book has no edition '2031'" in caplog.text
        for personal in (DETAILS.name, DETAILS.email):
            assert personal not in caplog.text

    def test_it_goes_on_when_the_database_is_back(
        self, office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("infra.invoice_clerk.EVERY_S", 0.01)
        stop, looks = Event(), iter([StoreUnavailable("gone"), Issued([], [])])

        def issue_due(*_: object, **__: object) -> Issued:
            look = next(looks)
            if isinstance(look, Exception):
                raise look
            stop.set()
            return look

        monkeypatch.setattr(office.invoicing, "issue_due", issue_due)
        InvoiceClerk(office.invoicing, lambda: NOON).run(stop)
        assert stop.is_set()
        assert "invoices cannot be issued: gone" in caplog.text
