"""A crash between any two steps of paying and refunding: money and credits agree, and nothing counts twice.

The world is a gateway with a book of its own, a real database, and a shop whose process dies at one chosen
step: before or after anything it asks of the gateway or appends to the log. Then another process goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from domain.errors import LedgerError
from domain.facts import CreditsPurchased, PurchaseRefunded, PurchaseRefundReversed
from domain.gateway import AttemptStatus
from domain.ledger import Ledger
from domain.payment_facts import PaymentCompleted, PaymentRefunded, PaymentStatus
from domain.purchases import PurchasePlan
from infra.bootstrap import open_ledger
from tests.integration.test_payments import ORG, PAYG, PRO, Shop
from tests.simulation.world import Death

STEPS_MAX = 200


class Process:
    """Counts the steps of a shop's process, and kills it at one of them."""

    def __init__(self, shop: Shop, fails_at: int | None) -> None:
        self.steps: list[str] = []
        self._fails_at = fails_at
        shop.gateway._step = self._step
        store = shop.ledger.events
        self._append = store.append
        store.append = self._append_in_steps  # type: ignore[method-assign]
        self._store = store

    def end(self) -> None:
        """Let the next process live: it counts no steps."""
        self._fails_at = -1
        self._store.append = self._append  # type: ignore[method-assign]

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) - 1 == self._fails_at:
            raise Death

    def _append_in_steps(self, *args: Any, **kwargs: Any) -> int:
        self._step("before append")
        position = self._append(*args, **kwargs)
        self._step("after append")
        return position


@pytest.fixture(scope="module")
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    from infra.migrate import migrate
    from tests.servers import new_database

    with new_database(request.getfixturevalue("postgres_server")) as url:
        migrate(url)
        with closing(open_ledger(url)) as opened:
            yield opened


def story(shop: Shop, plan: PurchasePlan, outcome: str) -> None:
    """What the process would do if it lived: it buys, hears of it, and gives half of it back."""
    quoted = shop.quote(1_000, plan)
    payment = shop.begin(quoted, payment_id=f"{shop.name}-1").payment
    order_id = str(payment.order_id)
    if outcome == "failed first":
        shop.learn(shop.gateway.pay(order_id, AttemptStatus.FAILED))
    attempt = shop.gateway.pay(order_id)
    shop.learn(attempt)
    shop.learn(attempt)
    if outcome == "refund refused":
        shop.gateway.refuses_refunds = True
    shop.refund(payment, 500)


def go_on(shop: Shop) -> None:
    """What others do after the death: the payer pays if there is anything to pay, and the keeper keeps."""
    shop.now += timedelta(minutes=1)
    try:
        payment = shop.payments.payment(f"{shop.name}-1")
    except LedgerError:
        return  # nothing was begun
    shop.attend(payment)
    for order_id, attempts in shop.gateway.attempts_of.items():
        if not any(attempt.status is AttemptStatus.CAPTURED for attempt in attempts):
            shop.gateway.pay(order_id)
    for _ in range(2):
        shop.attend(payment)


def audit(shop: Shop) -> None:
    """Recount from the gateway's book: what was paid for is there, once, and what went back is gone."""
    facts = [event.fact for event in shop.ledger.events.get(shop.ledger.organisation(shop.name).id)]
    bought = [fact for fact in facts if isinstance(fact, CreditsPurchased)]
    taken = [fact for fact in facts if isinstance(fact, PurchaseRefunded)]
    given = [fact for fact in facts if isinstance(fact, PurchaseRefundReversed)]
    captured = [
        attempt
        for attempts in shop.gateway.attempts_of.values()
        for attempt in attempts
        if attempt.status is AttemptStatus.CAPTURED
    ]
    assert [fact.payment_id for fact in bought] == [attempt.gateway_payment_id for attempt in captured]
    back_minor = sum(fact.amount_minor + fact.tax_minor for fact in taken)
    if not given:
        assert back_minor == sum(request.amount_minor for request, _ in shop.gateway.refunds.values())
    else:
        assert shop.gateway.refunds == {}
    kept = 1_000 * len(bought) - sum(f.credits for f in taken) + sum(f.credits for f in given)
    assert shop.ledger.organisation(shop.name).balance == kept
    if not captured:
        return
    payment = shop.payments.payment(f"{shop.name}-1")
    history = [event.fact for event in shop.ledger.events.get(payment.id)]
    assert sum(isinstance(fact, PaymentCompleted) for fact in history) == 1
    assert sum(isinstance(fact, PaymentRefunded) for fact in history) == len(shop.gateway.refunds)
    assert payment.open_refunds == []
    assert payment.status is (PaymentStatus.REFUNDED if shop.gateway.refunds else PaymentStatus.COMPLETED)


_names = count(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "outcome"), [(PAYG, "paid"), (PRO, "failed first"), (PAYG, "refund refused")]
)
def test_a_crash_at_every_step(ledger: Ledger, plan: PurchasePlan, outcome: str) -> None:
    for step in range(STEPS_MAX):
        shop = Shop(ledger, f"{ORG}-{next(_names)}")
        process = Process(shop, step)
        died = False
        try:
            story(shop, plan, outcome)
        except Death:
            died = True
        finally:
            process.end()
        try:
            go_on(shop)
            audit(shop)
        except BaseException as error:
            error.add_note(f"died at step {step}: {process.steps[-1]}")
            raise
        if not died:
            break
    assert not died
    assert step > 12


@pytest.mark.slow
def test_what_an_amount_is_for_survives_a_crash_at_every_step(ledger: Ledger) -> None:
    died = True
    for step in range(STEPS_MAX):
        shop = Shop(ledger, f"{ORG}-{next(_names)}")
        payment_id = f"{shop.name}-1"
        process = Process(shop, step)
        try:
            shop.pay(shop.begin(shop.quote_custom(), payment_id=payment_id).payment)
            died = False
        except Death:
            pass
        finally:
            process.end()
        go_on(shop)
        if process.steps != ["before append"]:
            assert shop.payments.payment(payment_id).status is PaymentStatus.COMPLETED, process.steps
            assert shop.payments.remarks(shop.name, [payment_id]) == {payment_id: "a banner"}, process.steps
        if not died:
            break
    assert not died
    assert step > 5
