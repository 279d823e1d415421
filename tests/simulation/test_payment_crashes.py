"""A crash between any two steps of payments and refunds: money and credits agree, and nothing counts twice.

The simulation has a gateway with its own records, a real database, and a process that crashes at a chosen
step: before or after a request to the gateway or an append to the log. Then another process continues.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from itertools import count

import pytest

from domain.credits.events import CreditsPurchased, PurchaseRefunded, PurchaseRefundReversed
from domain.credits.ledger import Ledger
from domain.payments.errors import PaymentNotFound
from domain.payments.events import (
    AttemptRefunded,
    Flag,
    PaymentCompleted,
    PaymentKind,
    PaymentRefunded,
    PaymentRefundRequested,
    PaymentStatus,
)
from domain.payments.gateway import AttemptStatus
from domain.payments.payment import Payment
from domain.payments.quotes import PurchasePlan
from domain.payments.refunds import AttemptRefund, FeeRefund, RefundRequest
from domain.pricing.plans import Plan
from domain.shared.errors import LedgerError
from domain.shared.event_store import Command, CommandOutcome, IdempotencyKey
from tests.integration.payments.test_payments import ORG, PAYG, PRO, PaymentEnvironment
from tests.simulation.ingest_simulation import SimulatedCrash

STEPS_MAX = 200


class Process:
    """Counts the steps of a process, and crashes it at one of them."""

    def __init__(self, payment_env: PaymentEnvironment, fails_at: int | None) -> None:
        self.steps: list[str] = []
        self._fails_at = fails_at
        payment_env.gateway._step = self._step
        store = payment_env.ledger.events
        self._run = store.run
        store.run = self._run_in_steps  # type: ignore[method-assign]
        self._store = store

    def end(self) -> None:
        """End the crashing process. The next one counts no steps."""
        self._fails_at = -1
        self._store.run = self._run  # type: ignore[method-assign]

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) - 1 == self._fails_at:
            raise SimulatedCrash

    def _run_in_steps(self, command: Command) -> CommandOutcome:
        self._step("before append")
        outcome = self._run(command)
        self._step("after append")
        return outcome


def story(payment_env: PaymentEnvironment, plan: PurchasePlan, outcome: str) -> None:
    """The steps of a process without a crash: a purchase, its webhook, and refunds."""
    quoted = payment_env.quote(1_000, plan)
    payment = payment_env.begin(quoted, payment_id=f"{payment_env.name}-1").payment
    order_id = str(payment.order_id)
    if outcome == "failed first":
        payment_env.record_attempt(payment_env.gateway.pay(order_id, AttemptStatus.FAILED))
    attempt = payment_env.gateway.pay(order_id)
    payment_env.record_attempt(attempt)
    payment_env.record_attempt(attempt)
    if outcome in ("odd given back", "odd refused"):
        payment_env.record_attempt(payment_env.gateway.pay(order_id))
    if outcome in ("refund refused", "fee refused", "odd refused"):
        payment_env.gateway.refuses_refunds = True
    if outcome.startswith("fee"):
        give_back(payment_env, FeeRefund(payment.terms.fee_minor))
    elif outcome.startswith("odd"):
        ((_, odd, _),) = payment_env.payments.payment(payment.terms.payment_id).open_flags
        give_back(payment_env, AttemptRefund(odd))
    else:
        payment_env.refund(payment, 500)


def give_back(payment_env: PaymentEnvironment, back: RefundRequest) -> None:
    """Request a refund. Repeated calls make one refund."""
    payment_env.give_back(
        payment_env.payments.payment(f"{payment_env.name}-1"),
        back,
        idempotency_key=IdempotencyKey("story", payment_env.name, b"1"),
    )


def continue_after_crash(payment_env: PaymentEnvironment) -> None:
    """What others do after the crash: the payer pays an open order, and the worker follows up."""
    payment_env.now += timedelta(minutes=1)
    try:
        payment = payment_env.payments.payment(f"{payment_env.name}-1")
    except LedgerError:
        return  # no payment was started
    payment_env.follow_up(payment)
    for order_id, attempts in payment_env.gateway.attempts_of.items():
        if not any(attempt.status is AttemptStatus.CAPTURED for attempt in attempts):
            payment_env.gateway.pay(order_id)
        for attempt in attempts:
            with suppress(PaymentNotFound):  # the order is open, but it is not in the log yet
                payment_env.record_attempt(attempt)  # a gateway repeats its webhook until it is accepted
    for _ in range(2):
        payment_env.follow_up(payment)


def audit(payment_env: PaymentEnvironment) -> None:
    """Recount from the gateway's records: every paid purchase was added once, and refunded ones were taken
    back.
    """
    given_back = {request.gateway_payment_id for request, _ in payment_env.gateway.refunds.values()}
    captured_ids = [
        attempt.gateway_payment_id
        for attempts in payment_env.gateway.attempts_of.values()
        for attempt in attempts
        if attempt.status is AttemptStatus.CAPTURED
    ]
    if captured_ids:
        payment = payment_env.payments.payment(f"{payment_env.name}-1")
        payment.check_invariants()
        assert payment.gateway_payment_id in captured_ids
        odd = set(captured_ids) - {payment.gateway_payment_id}
        # Captured twice: it was refunded, or it is flagged, and never both.
        told = {key.gateway_payment_id for key in payment.open_flags if key.flag is Flag.PAID_TWICE}
        assert odd == told ^ (given_back & odd)
        assert not told & given_back
        check_plan(payment_env, payment)


def check_plan(payment_env: PaymentEnvironment, payment: Payment) -> None:
    """Check that the subscription is active, unless its whole fee was refunded."""
    if payment.terms.kind is PaymentKind.PRO:
        fee = [
            refund
            for refund in payment.refunds.values()
            if isinstance(refund.requested_refund, PaymentRefundRequested)
            and not refund.requested_refund.credits
        ]
        is_back = any(refund.succeeded for refund in fee)
        assert (payment_env.plan is Plan.PRO) is not is_back
        refunds = [request.amount_minor for request, _ in payment_env.gateway.refunds.values()]
        assert not is_back or refunds == [payment.terms.fee_minor * 118 // 100]


def audit_credits(payment_env: PaymentEnvironment) -> None:
    """The same check for credits and their money."""
    facts = [
        envelope.event
        for envelope in payment_env.ledger.events.get(payment_env.ledger.organisation(payment_env.name).id)
    ]
    bought = [event for event in facts if isinstance(event, CreditsPurchased)]
    taken = [event for event in facts if isinstance(event, PurchaseRefunded)]
    given = [event for event in facts if isinstance(event, PurchaseRefundReversed)]
    captured = [
        attempt
        for attempts in payment_env.gateway.attempts_of.values()
        for attempt in attempts
        if attempt.status is AttemptStatus.CAPTURED
    ]
    paid_by = {attempt.gateway_payment_id for attempt in captured}
    assert len(bought) == bool(captured)
    assert {event.payment_id for event in bought} <= paid_by
    back_minor = sum(event.amount_minor + event.tax_minor for event in taken)
    ids = {event.refund_id for event in taken}
    sent_minor = sum(
        request.amount_minor
        for request, _ in payment_env.gateway.refunds.values()
        if request.refund_id in ids
    )
    assert sent_minor == (0 if given else back_minor)
    kept = 1_000 * len(bought) - sum(f.credits for f in taken) + sum(f.credits for f in given)
    assert payment_env.ledger.organisation(payment_env.name).balance == kept
    if not captured:
        return
    payment = payment_env.payments.payment(f"{payment_env.name}-1")
    history = [envelope.event for envelope in payment_env.ledger.events.get(payment.id)]
    assert sum(isinstance(event, PaymentCompleted) for event in history) == 1
    succeeded = [event for event in history if isinstance(event, PaymentRefunded | AttemptRefunded)]
    assert {event.refund_id for event in succeeded} == payment_env.gateway.refunds.keys()
    assert len(succeeded) == len(payment_env.gateway.refunds) <= 1
    assert payment.open_refunds == []
    is_refunded = any(isinstance(event, PaymentRefunded) for event in succeeded)
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
        payment_env = PaymentEnvironment(ledger, f"{ORG}-{next(_names)}")
        process = Process(payment_env, step)
        died = False
        try:
            story(payment_env, plan, outcome)
        except SimulatedCrash:
            died = True
        finally:
            process.end()
        try:
            continue_after_crash(payment_env)
            audit(payment_env)
            audit_credits(payment_env)
        except BaseException as error:
            error.add_note(f"died at step {step}: {process.steps[-1]}")
            raise
        if not died:
            break
    assert not died
    assert step > 12


@pytest.mark.slow
def test_the_remark_of_an_amount_survives_a_crash_at_every_step(ledger: Ledger) -> None:
    died = True
    for step in range(STEPS_MAX):
        payment_env = PaymentEnvironment(ledger, f"{ORG}-{next(_names)}")
        payment_id = f"{payment_env.name}-1"
        process = Process(payment_env, step)
        try:
            payment_env.pay(payment_env.begin(payment_env.quote_custom(), payment_id=payment_id).payment)
            died = False
        except SimulatedCrash:
            pass
        finally:
            process.end()
        continue_after_crash(payment_env)
        if process.steps != ["before append"]:
            assert payment_env.payments.payment(payment_id).status is PaymentStatus.COMPLETED, process.steps
            assert payment_env.payments.remarks(payment_env.name, [payment_id]) == {payment_id: "a banner"}, (
                process.steps
            )
        if not died:
            break
    assert not died
    assert step > 5
