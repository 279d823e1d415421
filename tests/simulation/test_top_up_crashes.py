"""A crash between any two steps of a top-up: the card is charged once, and its credits are added once."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

import pytest

from domain.credits.auto_top_up import TopUpTerms
from domain.credits.auto_top_up_events import AutoTopUpBegun, AutoTopUpSwitchedOn
from domain.credits.events import CreditsPurchased
from domain.credits.ledger import Ledger
from domain.invoicing.ports import StoredBillingDetails
from domain.payments.events import PaymentStatus
from domain.payments.gateway import AttemptStatus
from infra.event_store.recorder import event_store_of
from infra.invoicing.document_store import PostgresBillingDocumentStore
from tests.integration.payments.test_payments import ORG, PAYG, PaymentEnvironment
from tests.sales import billed_to
from tests.simulation.ingest_simulation import SimulatedCrash
from tests.simulation.test_payment_crashes import STEPS_MAX, Process

TERMS = TopUpTerms(credits=1_000, threshold=5_000, per_day=1)
"""The purchase leaves credits low, so that only the pause prevents another one."""

_names = count(1)


def switch_on(payment_env: PaymentEnvironment) -> None:
    datastore = event_store_of(payment_env.ledger).recorder.datastore
    on_file = StoredBillingDetails(billed_to(), payment_env.now, "u-1")
    PostgresBillingDocumentStore(datastore).put_billing_details(payment_env.name, on_file, b"salt")
    quoted = payment_env.payments.quote(
        payment_env.name,
        PAYG,
        1_000,
        quote_id=f"{payment_env.name}-q",
        context=payment_env.request(),
        top_up=TERMS,
    )
    payment_env.pay(payment_env.begin(quoted, payment_id=f"{payment_env.name}-0").payment)


def run_workers(payment_env: PaymentEnvironment, payment_id: str) -> None:
    """Do the work of the workers: start due top-ups, and follow up payments."""
    begun = payment_env.top_ups.begin(payment_env.name, payment_id, context=payment_env.request())
    if begun is not None:
        payment_env.tracking.follow_up(begun.terms.payment_id, context=payment_env.request())


def continue_after_crash(payment_env: PaymentEnvironment) -> None:
    """Run another process, immediately and later on the same day, which follows up open payments."""
    state = payment_env.ledger.organisation(payment_env.name).auto_top_up
    for number in range(3):
        payment_env.now += timedelta(minutes=1)
        run_workers(payment_env, f"{payment_env.name}-again-{number}")
        state = payment_env.ledger.organisation(payment_env.name).auto_top_up
        if state is not None and state.last_payment_id is not None:
            payment_env.tracking.follow_up(state.last_payment_id, context=payment_env.request())


def audit(payment_env: PaymentEnvironment, outcome: AttemptStatus) -> None:
    """Recount from the gateway's own records."""
    facts = [
        envelope.event
        for envelope in payment_env.ledger.events.get(payment_env.ledger.organisation(payment_env.name).id)
    ]
    assert sum(isinstance(event, AutoTopUpSwitchedOn) for event in facts) == 1
    (begun,) = [event for event in facts if isinstance(event, AutoTopUpBegun)]
    charged = payment_env.gateway.attempts_of[f"order_{begun.payment_id}"]
    assert [attempt.status for attempt in charged] == [outcome]
    captured = [
        attempt.gateway_payment_id
        for attempts in payment_env.gateway.attempts_of.values()
        for attempt in attempts
        if attempt.status is AttemptStatus.CAPTURED
    ]
    assert [event.payment_id for event in facts if isinstance(event, CreditsPurchased)] == captured
    assert payment_env.ledger.organisation(payment_env.name).balance == 1_000 * len(captured)
    wanted = PaymentStatus.COMPLETED if outcome is AttemptStatus.CAPTURED else PaymentStatus.FAILED
    assert payment_env.payments.payment(begun.payment_id).status is wanted


@pytest.mark.slow
@pytest.mark.parametrize("outcome", [AttemptStatus.CAPTURED, AttemptStatus.FAILED])
def test_a_crash_at_every_step(ledger: Ledger, outcome: AttemptStatus) -> None:
    for step in range(STEPS_MAX):
        payment_env = PaymentEnvironment(ledger, f"{ORG}-top-{next(_names)}")
        switch_on(payment_env)
        payment_env.gateway.card_answers = outcome
        process = Process(payment_env, step)
        died = False
        try:
            run_workers(payment_env, f"{payment_env.name}-1")
        except SimulatedCrash:
            died = True
        finally:
            process.end()
        try:
            continue_after_crash(payment_env)
            audit(payment_env, outcome)
        except BaseException as error:
            error.add_note(f"died at step {step}: {process.steps[-1]}")
            raise
        if not died:
            break
    assert not died
    assert step > 8
