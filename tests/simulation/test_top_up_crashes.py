"""A crash between any two steps of a top-up: the card is charged once, and its credits are there once."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import cast

import pytest

from domain.auto_top_up import TopUpTerms
from domain.facts import CreditsPurchased
from domain.gateway import AttemptStatus
from domain.invoicing import BillingOnFile
from domain.ledger import Ledger
from domain.payment_facts import PaymentStatus
from domain.top_up_facts import AutoTopUpBegun, AutoTopUpSwitchedOn
from infra.event_store.recorder import LedgerEventStore
from infra.papers import PostgresPapers
from tests.integration.test_payments import ORG, PAYG, Shop
from tests.sales import billed_to
from tests.simulation.test_payment_crashes import STEPS_MAX, Process
from tests.simulation.world import Death

TERMS = TopUpTerms(credits=1_000, threshold=5_000, per_day=1)
"""What is bought leaves credits low, so that nothing but the brake keeps it from being bought again."""

_names = count(1)


def switch_on(shop: Shop) -> None:
    datastore = cast(LedgerEventStore, shop.ledger.events).recorder.datastore
    on_file = BillingOnFile(billed_to(), shop.now, "u-1")
    PostgresPapers(datastore).put_billing_details(shop.name, on_file, b"salt")
    quoted = shop.payments.quote(
        shop.name, PAYG, 1_000, quote_id=f"{shop.name}-q", request=shop.request(), top_up=TERMS
    )
    shop.pay(shop.begin(quoted, payment_id=f"{shop.name}-0").payment)


def look(shop: Shop, payment_id: str) -> None:
    """Do what the keepers do: begin what is due, and go on with what was begun."""
    begun = shop.payments.top_ups.begin(shop.name, payment_id, request=shop.request())
    if begun is not None:
        shop.payments.attend(begun.terms.payment_id, request=shop.request())


def go_on(shop: Shop) -> None:
    """Let another process look, at once and later on the same day, and attend to what was left."""
    state = shop.ledger.organisation(shop.name).auto_top_up
    for number in range(3):
        shop.now += timedelta(minutes=1)
        look(shop, f"{shop.name}-again-{number}")
        state = shop.ledger.organisation(shop.name).auto_top_up
        if state is not None and state.last_payment_id is not None:
            shop.payments.attend(state.last_payment_id, request=shop.request())


def audit(shop: Shop, outcome: AttemptStatus) -> None:
    """Recount from the gateway's own book."""
    facts = [event.fact for event in shop.ledger.events.get(shop.ledger.organisation(shop.name).id)]
    assert sum(isinstance(fact, AutoTopUpSwitchedOn) for fact in facts) == 1
    (begun,) = [fact for fact in facts if isinstance(fact, AutoTopUpBegun)]
    charged = shop.gateway.attempts_of[f"order_{begun.payment_id}"]
    assert [attempt.status for attempt in charged] == [outcome]
    captured = [
        attempt.gateway_payment_id
        for attempts in shop.gateway.attempts_of.values()
        for attempt in attempts
        if attempt.status is AttemptStatus.CAPTURED
    ]
    assert [fact.payment_id for fact in facts if isinstance(fact, CreditsPurchased)] == captured
    assert shop.ledger.organisation(shop.name).balance == 1_000 * len(captured)
    wanted = PaymentStatus.COMPLETED if outcome is AttemptStatus.CAPTURED else PaymentStatus.FAILED
    assert shop.payments.payment(begun.payment_id).status is wanted


@pytest.mark.slow
@pytest.mark.parametrize("outcome", [AttemptStatus.CAPTURED, AttemptStatus.FAILED])
def test_a_crash_at_every_step(ledger: Ledger, outcome: AttemptStatus) -> None:
    for step in range(STEPS_MAX):
        shop = Shop(ledger, f"{ORG}-top-{next(_names)}")
        switch_on(shop)
        shop.gateway.card_answers = outcome
        process = Process(shop, step)
        died = False
        try:
            look(shop, f"{shop.name}-1")
        except Death:
            died = True
        finally:
            process.end()
        try:
            go_on(shop)
            audit(shop, outcome)
        except BaseException as error:
            error.add_note(f"died at step {step}: {process.steps[-1]}")
            raise
        if not died:
            break
    assert not died
    assert step > 8
