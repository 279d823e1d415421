"""Invoices on a real database: a seller, an organisation, and payments as their own use cases record them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from domain.aggregate import Event
from domain.billing import Address, BillingDetails
from domain.facts import Request
from domain.identity import payment_stream
from domain.invoicing import Invoicing
from domain.ledger import Ledger
from domain.money import Currency
from domain.payment_facts import (
    PaymentCompleted,
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundRequested,
)
from infra.bootstrap import open_ledger
from infra.papers import PostgresPapers
from infra.wording import EnglishWording
from tests.sales import NOON, SELLER, requested

ORG = "org-4711"
DETAILS = BillingDetails(
    "Marathon Photos Pvt Ltd",
    "accounts@marathon.example",
    Address("IN", "Maharashtra", "Mumbai", "400001", ("12 Fort", "4th floor")),
    tax_id="27AAPFU0939F1ZV",
)


def request(at: datetime = NOON) -> Request:
    return Request(at, "u-1", "request-1")


@dataclass
class Office:
    """A ledger, its invoices, and payments that happen."""

    ledger: Ledger
    invoicing: Invoicing
    sql: psycopg.Connection[Any]

    def append(self, payment_id: str, *facts: Any) -> None:
        """Record what happened to a payment."""
        stream = payment_stream(payment_id)
        done = len(list(self.ledger.events.get(stream)))
        events = [Event(stream, done + number, fact) for number, fact in enumerate(facts, 1)]
        self.ledger.events.append(events, once=None, answer=b"")  # type: ignore[attr-defined]

    def pay(self, payment_id: str, organisation_id: str = ORG, at: datetime = NOON, **changes: Any) -> str:
        """Let an organisation pay: 1,000 credits for ₹1,500 and 18 % GST, unless changed."""
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
        """Let money of a payment go back."""
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
    papers = PostgresPapers(ledger.events.recorder.datastore)  # type: ignore[attr-defined]
    return Invoicing(ledger, papers, SELLER, EnglishWording())


@pytest.fixture
def office(service_database: str, migrated_database: str) -> Iterator[Office]:
    ledger = open_ledger(service_database)
    ledger.open_organisation(ORG, request=request(), currency=Currency.INR)
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        yield Office(ledger, invoicing_of(ledger), connection)
    ledger.close()
