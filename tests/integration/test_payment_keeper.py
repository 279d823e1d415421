"""What becomes of payments that nobody looks at any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

from domain.facts import Plan
from domain.gateway import AttemptStatus, GatewayUnavailable
from domain.payment_facts import PaymentStatus
from infra.bootstrap import open_ledger
from infra.payment_keeper import ASKED_FOR, SELDOMEST, KeptPayments, PaymentKeeper
from projections.runner import ProjectionRunner
from tests.integration.test_payments import ORG, PRO, Shop


class Keeping:
    """A shop, and what looks after its payments."""

    def __init__(self, shop: Shop, conninfo: str, connection: psycopg.Connection) -> None:
        self.shop = shop
        self.keeper = PaymentKeeper(shop.payments, conninfo, lambda: shop.now)
        self._conninfo = conninfo
        self._connection = connection

    def after(self, **time: float) -> int:
        """Let time pass, look after payments, and return how many were due."""
        self.shop.now += timedelta(**time)
        ProjectionRunner(self._conninfo).catch_up()
        due = self.keeper.look_after(self._connection)
        ProjectionRunner(self._conninfo).catch_up()
        return due


@pytest.fixture
def keeping(service_database: str) -> Iterator[Keeping]:
    with (
        closing(open_ledger(service_database)) as ledger,
        psycopg.connect(service_database, autocommit=True) as connection,
    ):
        yield Keeping(Shop(ledger), service_database, connection)


def test_a_payment_whose_news_got_lost_completes_by_itself(keeping: Keeping) -> None:
    payment = keeping.shop.order()
    keeping.shop.gateway.pay(str(payment.order_id))
    assert keeping.after(seconds=14) == 0
    assert keeping.after(seconds=1) == 1
    assert keeping.shop.balance == 1_000
    assert keeping.after(hours=2) == 0


def test_old_ones_are_asked_about_ever_more_seldom(keeping: Keeping) -> None:
    keeping.shop.order()
    assert [keeping.after(minutes=1) for _ in range(3)] == [1, 1, 1]
    assert [keeping.after(minutes=5), keeping.after(minutes=1), keeping.after(minutes=2)] == [1, 0, 1]
    assert keeping.after(hours=5) == 1
    assert keeping.after(seconds=SELDOMEST.total_seconds() - 1) == 0
    assert keeping.after(seconds=1) == 1


def test_what_nobody_pays_is_abandoned_and_asked_about_for_a_while(keeping: Keeping) -> None:
    payment = keeping.shop.order()
    keeping.after(hours=24)
    current = keeping.shop.payments.payment(payment.terms.payment_id)
    assert current.status is PaymentStatus.ABANDONED
    keeping.shop.gateway.pay(str(payment.order_id))
    keeping.after(hours=24)
    assert keeping.shop.balance == 1_000


def test_late_money_after_a_failed_attempt_is_found(keeping: Keeping) -> None:
    payment = keeping.shop.pay(keeping.shop.order(), status=AttemptStatus.FAILED)
    keeping.shop.gateway.pay(str(payment.order_id))
    keeping.after(minutes=1)
    assert keeping.shop.balance == 1_000


def test_after_days_nobody_is_asked_any_more(keeping: Keeping) -> None:
    keeping.shop.order()
    assert keeping.after(seconds=ASKED_FOR.total_seconds()) == 0


def test_what_a_crash_left_is_gone_on_with(keeping: Keeping) -> None:
    shop = keeping.shop
    shop.gateway.is_down = True
    with pytest.raises(GatewayUnavailable):
        shop.begin(payment_id="payment-x")
    assert keeping.after(minutes=1) == 1
    assert keeping.keeper.failures == 1
    shop.gateway.is_down = False
    keeping.after(minutes=2)
    assert shop.payments.payment("payment-x").status is PaymentStatus.PENDING


def test_a_gateway_that_is_down_is_asked_once_a_round(keeping: Keeping) -> None:
    for _ in range(3):
        keeping.shop.order()
    keeping.shop.gateway.is_down = True
    assert keeping.after(minutes=1) == 3
    assert keeping.keeper.failures == 1


def test_refunds_are_asked_for_until_they_are_answered(keeping: Keeping) -> None:
    payment = keeping.shop.buy()
    keeping.shop.gateway.is_down = True
    keeping.shop.refund(payment)
    keeping.after(minutes=1)
    assert keeping.keeper.kept.open_refunds == 1
    keeping.shop.gateway.is_down = False
    keeping.after(minutes=1)
    assert keeping.shop.gateway.taken_minor == 0
    assert keeping.after(hours=1) == 0
    assert keeping.keeper.kept.open_refunds == 0


def test_pro_ends_with_its_time(keeping: Keeping) -> None:
    keeping.shop.buy(0, PRO)
    keeping.after(days=364)
    assert keeping.shop.plan is Plan.PRO
    keeping.after(days=1)
    assert keeping.shop.plan is Plan.PAY_AS_YOU_GO
    version = keeping.shop.ledger.organisation(ORG).version
    keeping.after(days=1)
    assert keeping.shop.ledger.organisation(ORG).version == version


def test_what_is_open_is_counted(keeping: Keeping) -> None:
    keeping.shop.order()
    keeping.shop.pay(keeping.shop.order(), amount_minor=1)
    keeping.after(seconds=10)
    assert keeping.keeper.kept == KeptPayments(1, 10.0, 0, 1)
