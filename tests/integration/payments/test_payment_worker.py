"""The payment worker follows up open payments and refunds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

from domain.payments.events import PaymentStatus
from domain.payments.gateway import AttemptStatus, GatewayUnavailable
from domain.pricing.plans import Plan
from infra.payments.payment_worker import (
    RECHECK_FOR,
    RECHECK_INTERVAL_MAX,
    PaymentCounts,
    PaymentWorker,
)
from infra.service.composition import credits_of, open_ledger
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.integration.payments.test_payments import ORG, PRO, PaymentEnvironment


class WorkerEnvironment:
    """A payment environment with a payment worker."""

    def __init__(
        self, payment_env: PaymentEnvironment, conninfo: str, connection: psycopg.Connection
    ) -> None:
        self.payment_env = payment_env
        self.worker = PaymentWorker(
            payment_env.tracking, credits_of(payment_env.ledger).commands, conninfo, lambda: payment_env.now
        )
        self._conninfo = conninfo
        self._connection = connection

    def after(self, **time: float) -> int:
        """Advance the clock, run the worker, and return how many payments were due."""
        self.payment_env.now += timedelta(**time)
        ProjectionRunner(self._conninfo, ALL_PROJECTIONS).catch_up()
        due = self.worker.follow_up_due(self._connection)
        ProjectionRunner(self._conninfo, ALL_PROJECTIONS).catch_up()
        return due


@pytest.fixture
def worker_env(service_database: str) -> Iterator[WorkerEnvironment]:
    with (
        closing(open_ledger(service_database)) as ledger,
        psycopg.connect(service_database, autocommit=True) as connection,
    ):
        yield WorkerEnvironment(PaymentEnvironment(ledger), service_database, connection)


def test_a_payment_with_a_lost_webhook_completes(worker_env: WorkerEnvironment) -> None:
    payment = worker_env.payment_env.order()
    worker_env.payment_env.gateway.pay(str(payment.order_id))
    assert worker_env.after(seconds=14) == 0
    assert worker_env.after(seconds=1) == 1
    assert worker_env.payment_env.balance == 1_000
    assert worker_env.after(hours=2) == 0


def test_older_payments_are_checked_less_often(worker_env: WorkerEnvironment) -> None:
    worker_env.payment_env.order()
    assert [worker_env.after(minutes=1) for _ in range(3)] == [1, 1, 1]
    assert [worker_env.after(minutes=5), worker_env.after(minutes=1), worker_env.after(minutes=2)] == [
        1,
        0,
        1,
    ]
    assert worker_env.after(hours=5) == 1
    assert worker_env.after(seconds=RECHECK_INTERVAL_MAX.total_seconds() - 1) == 0
    assert worker_env.after(seconds=1) == 1


def test_an_unpaid_payment_is_abandoned_and_still_checked_for_some_time(
    worker_env: WorkerEnvironment,
) -> None:
    payment = worker_env.payment_env.order()
    worker_env.after(hours=24)
    current = worker_env.payment_env.payments.payment(payment.terms.payment_id)
    assert current.status is PaymentStatus.ABANDONED
    worker_env.payment_env.gateway.pay(str(payment.order_id))
    worker_env.after(hours=24)
    assert worker_env.payment_env.balance == 1_000


def test_a_late_payment_after_a_failed_attempt_is_found(worker_env: WorkerEnvironment) -> None:
    payment = worker_env.payment_env.pay(worker_env.payment_env.order(), status=AttemptStatus.FAILED)
    worker_env.payment_env.gateway.pay(str(payment.order_id))
    worker_env.after(minutes=1)
    assert worker_env.payment_env.balance == 1_000


def test_checks_end_after_some_days(worker_env: WorkerEnvironment) -> None:
    worker_env.payment_env.order()
    assert worker_env.after(seconds=RECHECK_FOR.total_seconds()) == 0


def test_payments_interrupted_by_a_crash_are_continued(worker_env: WorkerEnvironment) -> None:
    payment_env = worker_env.payment_env
    payment_env.gateway.is_down = True
    with pytest.raises(GatewayUnavailable):
        payment_env.begin(payment_id="payment-x")
    assert worker_env.after(minutes=1) == 1
    assert worker_env.worker.failures == 1
    payment_env.gateway.is_down = False
    worker_env.after(minutes=2)
    assert payment_env.payments.payment("payment-x").status is PaymentStatus.PENDING


def test_an_unavailable_gateway_is_called_once_per_round(worker_env: WorkerEnvironment) -> None:
    for _ in range(3):
        worker_env.payment_env.order()
    worker_env.payment_env.gateway.is_down = True
    assert worker_env.after(minutes=1) == 3
    assert worker_env.worker.failures == 1


def test_refunds_are_requested_until_they_are_answered(worker_env: WorkerEnvironment) -> None:
    payment = worker_env.payment_env.buy()
    worker_env.payment_env.gateway.is_down = True
    worker_env.payment_env.refund(payment)
    worker_env.after(minutes=1)
    assert worker_env.worker.payment_counts.open_refunds == 1
    worker_env.payment_env.gateway.is_down = False
    worker_env.after(minutes=1)
    assert worker_env.payment_env.gateway.taken_minor == 0
    assert worker_env.after(hours=1) == 0
    assert worker_env.worker.payment_counts.open_refunds == 0


def test_pro_expires(worker_env: WorkerEnvironment) -> None:
    worker_env.payment_env.buy(0, PRO)
    worker_env.after(days=364)
    assert worker_env.payment_env.plan is Plan.PRO
    worker_env.after(days=1)
    assert worker_env.payment_env.plan is Plan.PAY_AS_YOU_GO
    version = worker_env.payment_env.ledger.organisation(ORG).version
    worker_env.after(days=1)
    assert worker_env.payment_env.ledger.organisation(ORG).version == version


def test_open_payments_are_counted(worker_env: WorkerEnvironment) -> None:
    worker_env.payment_env.order()
    worker_env.payment_env.pay(worker_env.payment_env.order(), amount_minor=1)
    worker_env.after(seconds=10)
    assert worker_env.worker.payment_counts == PaymentCounts(1, 10.0, 0, 1)
