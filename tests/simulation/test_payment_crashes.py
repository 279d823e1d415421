"""A crash between any two steps of paying and refunding: money and credits agree, and nothing counts twice.

The world is a gateway with a book of its own, a real database, and a shop whose process dies at one chosen
step: before or after anything it asks of the gateway or appends to the log. Then another process goes on.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from domain.errors import LedgerError, PaymentUnknown
from domain.facts import CreditsPurchased, Plan, PurchaseRefunded, PurchaseRefundReversed
from domain.gateway import AttemptStatus
from domain.ledger import Ledger
from domain.payment import Payment
from domain.payment_facts import (
    AttemptRefunded,
    Flag,
    PaymentCompleted,
    PaymentKind,
    PaymentRefunded,
    PaymentRefundRequested,
    PaymentStatus,
)
from domain.payment_refunds import AttemptBack, Back, FeeBack
from domain.ports import Once
from domain.purchases import PurchasePlan
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


def story(shop: Shop, plan: PurchasePlan, outcome: str) -> None:
    """What the process would do if it lived: it buys, hears of it, and gives money back."""
    quoted = shop.quote(1_000, plan)
    payment = shop.begin(quoted, payment_id=f"{shop.name}-1").payment
    order_id = str(payment.order_id)
    if outcome == "failed first":
        shop.learn(shop.gateway.pay(order_id, AttemptStatus.FAILED))
    attempt = shop.gateway.pay(order_id)
    shop.learn(attempt)
    shop.learn(attempt)
    if outcome in ("odd given back", "odd refused"):
        shop.learn(shop.gateway.pay(order_id))
    if outcome in ("refund refused", "fee refused", "odd refused"):
        shop.gateway.refuses_refunds = True
    if outcome.startswith("fee"):
        give_back(shop, FeeBack(payment.terms.fee_minor))
    elif outcome.startswith("odd"):
        ((_, odd, _),) = shop.payments.payment(payment.terms.payment_id).open_flags
        give_back(shop, AttemptBack(odd))
    else:
        shop.refund(payment, 500)


def give_back(shop: Shop, back: Back) -> None:
    """Ask for money back, by one refund however often it is asked for."""
    shop.give_back(shop.payments.payment(f"{shop.name}-1"), back, once=Once("story", shop.name, b"1"))


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
        for attempt in attempts:
            with suppress(PaymentUnknown):  # the order was opened, and is not in the log yet
                shop.learn(attempt)  # a gateway repeats its news until it is taken in
    for _ in range(2):
        shop.attend(payment)


def audit(shop: Shop) -> None:
    """Recount from the gateway's book: what was paid for is there, once, and what went back is gone."""
    given_back = {request.gateway_payment_id for request, _ in shop.gateway.refunds.values()}
    captured_ids = [
        attempt.gateway_payment_id
        for attempts in shop.gateway.attempts_of.values()
        for attempt in attempts
        if attempt.status is AttemptStatus.CAPTURED
    ]
    if captured_ids:
        payment = shop.payments.payment(f"{shop.name}-1")
        payment.check_invariants()
        assert payment.gateway_payment_id in captured_ids
        odd = set(captured_ids) - {payment.gateway_payment_id}
        # Taken twice: it is back, or somebody is told, and never both.
        told = {key.gateway_payment_id for key in payment.open_flags if key.flag is Flag.PAID_TWICE}
        assert odd == told ^ (given_back & odd)
        assert not told & given_back
        check_plan(shop, payment)


def check_plan(shop: Shop, payment: Payment) -> None:
    """The subscription is there, unless all of its fee went back."""
    if payment.terms.kind is PaymentKind.PRO:
        fee = [
            refund
            for refund in payment.refunds.values()
            if isinstance(refund.asked, PaymentRefundRequested) and not refund.asked.credits
        ]
        is_back = any(refund.went_back for refund in fee)
        assert (shop.plan is Plan.PRO) is not is_back
        refunds = [request.amount_minor for request, _ in shop.gateway.refunds.values()]
        assert not is_back or refunds == [payment.terms.fee_minor * 118 // 100]


def audit_credits(shop: Shop) -> None:
    """The same of credits and their money."""
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
    paid_by = {attempt.gateway_payment_id for attempt in captured}
    assert len(bought) == bool(captured)
    assert {fact.payment_id for fact in bought} <= paid_by
    back_minor = sum(fact.amount_minor + fact.tax_minor for fact in taken)
    ids = {fact.refund_id for fact in taken}
    sent_minor = sum(
        request.amount_minor for request, _ in shop.gateway.refunds.values() if request.refund_id in ids
    )
    assert sent_minor == (0 if given else back_minor)
    kept = 1_000 * len(bought) - sum(f.credits for f in taken) + sum(f.credits for f in given)
    assert shop.ledger.organisation(shop.name).balance == kept
    if not captured:
        return
    payment = shop.payments.payment(f"{shop.name}-1")
    history = [event.fact for event in shop.ledger.events.get(payment.id)]
    assert sum(isinstance(fact, PaymentCompleted) for fact in history) == 1
    went_back = [fact for fact in history if isinstance(fact, PaymentRefunded | AttemptRefunded)]
    assert {fact.refund_id for fact in went_back} == shop.gateway.refunds.keys()
    assert len(went_back) == len(shop.gateway.refunds) <= 1
    assert payment.open_refunds == []
    is_refunded = any(isinstance(fact, PaymentRefunded) for fact in went_back)
    assert payment.status is (PaymentStatus.REFUNDED if is_refunded else PaymentStatus.COMPLETED)


_names = count(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "outcome"),
    [
        (PAYG, "paid"),
        (PRO, "failed first"),
        (PAYG, "refund refused"),
        (PRO, "fee given back"),
        (PRO, "fee refused"),
        (PAYG, "odd given back"),
        (PAYG, "odd refused"),
    ],
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
            audit_credits(shop)
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
