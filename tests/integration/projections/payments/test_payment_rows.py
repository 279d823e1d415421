"""Rows of payments: each matches the payment's history, and the checks find a row that does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from psycopg.rows import dict_row

from domain.payments.events import Flag
from domain.payments.refunds import AttemptRefund
from infra.service.composition import open_ledger
from projections.audit import invariants
from projections.audit.row_comparison import compare_with_log
from projections.engine.rebuild import rebuild
from projections.registry import projections_named
from tests.integration.payments.test_payments import NOW, ORG, PRO, PaymentEnvironment
from tests.integration.projections.conftest import Ledger


@pytest.fixture
def payment_env(ledger: Ledger) -> Iterator[PaymentEnvironment]:
    """Payments with every outcome."""
    with closing(open_ledger(ledger.service)) as opened:
        payment_env = PaymentEnvironment(opened)
        payment_env.refund(payment_env.buy(), 400)
        payment_env.buy(1_000, PRO)
        payment_env.pay(payment_env.order(), amount_minor=1)
        payment_env.order()
        payment_env.payments.abandon(ORG, payment_env.order().terms.payment_id, context=payment_env.request())
        payment_env.gateway.refuses_refunds = True
        payment_env.refund(payment_env.buy(), 10)
        payment_env.gateway.refuses_refunds = False
        odd = payment_env.pay(payment_env.order(), amount_minor=2)
        payment_env.give_back(odd, AttemptRefund(next(iter(odd.flags)).gateway_payment_id))
        ledger.project(batch_size=3)
        yield payment_env


def rows(ledger: Ledger) -> list[dict[str, Any]]:
    cursor = ledger.connection.cursor(row_factory=dict_row)
    query = """
        SELECT payments.*, flag FROM projections.payments
        LEFT JOIN projections.payment_flags USING (stream, payment_id)
        ORDER BY created_at, payments.position
    """
    return cursor.execute(query).fetchall()


def test_a_row_has_the_status_of_its_payment(ledger: Ledger, payment_env: PaymentEnvironment) -> None:
    states = {(row["kind"], row["status"], row["flag"]) for row in rows(ledger)}
    assert states == {
        ("credits", "refunded", None),
        ("pro", "completed", None),
        ("credits", "failed", Flag.AMOUNT_DIFFERS.value),
        ("credits", "pending", None),
        ("credits", "abandoned", None),
        ("credits", "completed", Flag.REFUND_REFUSED.value),
    }
    (refunded,) = [row for row in rows(ledger) if row["status"] == "refunded"]
    assert (refunded["refunded_credits"], refunded["refunded_minor"]) == (400, 70_800)
    assert (refunded["amount_minor"], refunded["tax_minor"], refunded["created_at"]) == (150_000, 27_000, NOW)


def test_rows_match_the_log(ledger: Ledger, payment_env: PaymentEnvironment) -> None:
    assert invariants.check(ledger.connection) == []
    assert compare_with_log(ledger.owner) == []


def test_a_rebuild_makes_the_same_rows(ledger: Ledger, payment_env: PaymentEnvironment) -> None:
    before = rows(ledger)
    rebuild(ledger.owner, projections_named(["payments"]))
    assert rows(ledger) == before


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE projections.payments SET status = 'completed' WHERE status = 'pending'",
        "UPDATE projections.payments SET refunded_minor = 1 WHERE status = 'refunded'",
        "DELETE FROM projections.payments WHERE status = 'pending'",
        "UPDATE projections.payments SET payment_id = 'x' WHERE status = 'pending'",
    ],
)
def test_a_changed_row_is_found(ledger: Ledger, payment_env: PaymentEnvironment, harm: str) -> None:
    ledger.connection.execute(harm.encode())
    assert {finding.check for finding in invariants.check(ledger.connection)} == {"payment"}
