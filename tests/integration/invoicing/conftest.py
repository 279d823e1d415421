"""Invoices on a real database: a seller, an organisation, and its payments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from domain.credits.ledger import Ledger
from domain.invoicing.billing_details import Address, BillingDetails
from domain.invoicing.service import Invoicing
from domain.payments.events import (
    PaymentCompleted,
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundRequested,
)
from domain.shared.aggregate import EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.money import Currency
from domain.shared.stream_keys import payment_stream
from infra.invoicing.document_store import PostgresBillingDocumentStore
from infra.invoicing.wording import EnglishInvoiceText
from infra.service.composition import credits_of, open_ledger
from tests.sales import NOON, SELLER, requested

ORG = "org-4711"
DETAILS = BillingDetails(
    "Marathon Photos Pvt Ltd",
    "accounts@marathon.example",
    Address("IN", "Maharashtra", "Mumbai", "400001", ("12 Fort", "4th floor")),
    tax_id="27AAPFU0939F1ZV",
)


def request(at: datetime = NOON) -> CommandContext:
    return CommandContext(at, "u-1", "request-1")


@dataclass
class InvoicingEnvironment:
    """A ledger, its invoices, and payments."""

    ledger: Ledger
    invoicing: Invoicing
    sql: psycopg.Connection[Any]

    def append(self, payment_id: str, *payment_events: Any) -> None:
        """Append events of a payment."""
        stream = payment_stream(payment_id)
        done = len(list(self.ledger.events.get(stream)))
        events = [
            EventEnvelope(stream, done + number, event) for number, event in enumerate(payment_events, 1)
        ]
        self.ledger.events.append(events, idempotency_key=None, response=b"")  # type: ignore[attr-defined]

    def pay(self, payment_id: str, organisation_id: str = ORG, at: datetime = NOON, **changes: Any) -> str:
        """Record a completed payment: 1,000 credits for ₹1,500 and 18 % GST, unless changed."""
        common = (at, "u-1", "request-1", organisation_id, payment_id)
        terms = requested(recorded_at=at, organisation_id=organisation_id, payment_id=payment_id, **changes)
        self.append(
            payment_id,
            terms,
            PaymentOrdered(*common, "razorpay", f"order_{payment_id}"),
            PaymentCompleted(*common, f"pay_{payment_id}", 3),
        )
        return payment_id

    def give_back(self, payment_id: str, refund_id: str, credits_count: int, amount: int, tax: int) -> None:
        """Record a refund of a payment."""
        common = (NOON + timedelta(hours=1), "staff-3", "request-2", ORG, payment_id)
        self.append(
            payment_id,
            PaymentRefundRequested(*common, refund_id, credits_count, amount, tax),
            PaymentRefunded(*common, refund_id, f"rfnd_{refund_id}"),
        )

    def rows(self, query: str, *parameters: object) -> list[Any]:
        """Return the rows of a query."""
        return self.sql.execute(query.encode(), parameters).fetchall()


def invoicing_of(ledger: Ledger) -> Invoicing:
    documents = PostgresBillingDocumentStore(ledger.events.recorder.datastore)  # type: ignore[attr-defined]
    return Invoicing(credits_of(ledger).commands, documents, SELLER, EnglishInvoiceText())


@pytest.fixture
def invoicing_env(service_database: str, migrated_database: str) -> Iterator[InvoicingEnvironment]:
    ledger = open_ledger(service_database)
    credits_of(ledger).commands.open_organisation(ORG, context=request(), currency=Currency.INR)
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        yield InvoicingEnvironment(ledger, invoicing_of(ledger), connection)
    ledger.close()
