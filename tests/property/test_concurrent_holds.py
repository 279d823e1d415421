"""Eight writers on one organisation: every response must fit one serial order, that of the history.

A model without lots and events executes the acknowledged commands in the order of their versions, and
computes the expected responses. A refusal has no version: it must fit some moment during its request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from domain.credits.command_result import CommandResult
from domain.credits.errors import HoldClosed, InsufficientCredits, RefundExceedsCharge
from domain.credits.events import (
    ChargeRefunded,
    CreditsGranted,
    CreditsPurchased,
    GrantKind,
    UsageCharged,
)
from domain.credits.holds import HoldMode, HoldRequest
from domain.credits.ledger import Ledger
from domain.pricing.rate_card import RateCard, UsageType
from domain.shared.command_context import CommandContext
from domain.shared.event_store import IdempotencyKey
from infra.service.composition import credits_of
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.integration.consumers.ingest_environment import IngestEnvironment
from tests.unit.usage.records import usage_record

ORG = "org-1"
WRITERS = 7  # and the usage consumer
STEPS = 14
TRIAL = 60


@pytest.fixture
def ingest_env(migrated_database: str, service_database: str) -> Iterator[IngestEnvironment]:
    ingest_env = IngestEnvironment(migrated_database, service_database)
    ingest_env.open(ORG, trial_credits=TRIAL)
    yield ingest_env
    ingest_env.close()


@dataclass
class Writer:
    """One caller of the API. It sends some requests twice."""

    ledger: Ledger
    ingest_env: IngestEnvironment
    number: int
    rnd: Random
    holds: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[tuple[int, int, int]] = field(default_factory=list)
    """Version before, version after, requested credits."""
    answers: list[CommandResult] = field(default_factory=list)

    def run(self) -> None:
        for step in range(STEPS):
            action = self.rnd.choice(
                [self.place, self.place, self.close, self.grant, self.purchase, self.refund]
            )
            action(step)

    def request(self, step: int) -> CommandContext:
        return CommandContext(self.ingest_env.now, None, f"request-{self.number}-{step}")

    def twice(self, step: int, command: Any) -> None:
        """Send a request, and sometimes repeat it: the second response must equal the first."""
        idempotency_key = IdempotencyKey("test", f"{self.number}-{step}", b"asked")
        first = command(idempotency_key)
        self.answers.append(first.value)
        if self.rnd.random() < 0.3:
            again = command(idempotency_key)
            assert (again.value, again.repeated) == (first.value, True)

    def place(self, step: int) -> None:
        run_id = f"run-{self.number}-{step}"
        mode = self.rnd.choice(list(HoldMode))
        number = self.rnd.randrange(1, 40)
        wanted = HoldRequest(run_id, number, mode, UsageType.PHOTO_PROCESSING, number, True, 1, "M", None)
        before = self.ledger.organisation(ORG).version
        try:
            self.twice(
                step,
                lambda idempotency_key: credits_of(self.ledger).holds.place_hold(
                    ORG, wanted, context=self.request(step), idempotency_key=idempotency_key
                ),
            )
        except InsufficientCredits:
            least = number if mode is HoldMode.ALL_OR_NOTHING else 1
            self.refusals.append((before, self.ledger.organisation(ORG).version, least))
        else:
            hold = self.answers[-1].hold
            assert hold is not None
            self.holds.append((hold.hold_id, run_id))

    def close(self, step: int) -> None:
        if not self.holds:
            return
        hold_id, _ = self.holds.pop(self.rnd.randrange(len(self.holds)))
        if self.rnd.random() < 0.5:
            photos = self.rnd.randrange(30)
            self.twice(
                step,
                lambda idempotency_key: credits_of(self.ledger).holds.settle_hold(
                    ORG,
                    hold_id,
                    photos,
                    rates=RateCard(),
                    context=self.request(step),
                    idempotency_key=idempotency_key,
                ),
            )
        else:
            self.twice(
                step,
                lambda idempotency_key: credits_of(self.ledger).holds.release_hold(
                    ORG, hold_id, context=self.request(step), idempotency_key=idempotency_key
                ),
            )
        with pytest.raises(HoldClosed):
            credits_of(self.ledger).holds.release_hold(ORG, hold_id, context=self.request(step))

    def grant(self, step: int) -> None:
        self.twice(
            step,
            lambda idempotency_key: credits_of(self.ledger).commands.grant(
                ORG,
                5,
                kind=GrantKind.ADMIN,
                reason="r",
                context=self.request(step),
                idempotency_key=idempotency_key,
            ),
        )

    def purchase(self, step: int) -> None:
        self.twice(
            step,
            lambda idempotency_key: credits_of(self.ledger).commands.record_purchase(
                ORG,
                9,
                payment_id=f"pay-{self.number}-{step}",
                order_id="o",
                gateway="g",
                context=self.request(step),
                idempotency_key=idempotency_key,
            ),
        )

    def refund(self, step: int) -> None:
        organisation = self.ledger.organisation(ORG)
        events = list(self.ledger.events.get(organisation.id))
        charges = [e for e in events if isinstance(e.event, UsageCharged) and e.event.credits]  # type: ignore[attr-defined]
        if not charges:
            return
        charge = self.rnd.choice(charges)
        with suppress(RefundExceedsCharge):
            self.twice(
                step,
                lambda idempotency_key: credits_of(self.ledger).commands.refund_charge(
                    ORG,
                    charge.originator_version,
                    1,
                    reason="r",
                    context=self.request(step),
                    idempotency_key=idempotency_key,
                ),
            )


def publish(ingest_env: IngestEnvironment, writers: list[Writer], rnd: Random) -> None:
    """Charge usage of runs with and without holds, some of it twice, like the consumer."""
    partition, ingest = ingest_env.partition(), ingest_env.ingest()
    projections = ProjectionRunner(ingest_env.service, ALL_PROJECTIONS)
    sent = []
    for number in range(40):
        named = [hold for writer in writers for hold in list(writer.holds)]
        hold_id, run_id = (
            None,
            f"run-{rnd.randrange(WRITERS)}-{rnd.randrange(STEPS)}",
        )  # it may get a hold later
        if named and rnd.random() < 0.5:
            hold_id, run_id = rnd.choice(named)
        changes = {"data.hold_id": hold_id, "data.run_id": run_id}
        sent.append(usage_record(f"m-{number}", ORG, rnd.randrange(8), changes))
        partition.add(sent[-1])
        if rnd.random() < 0.2:
            partition.add(rnd.choice(sent))
        ingest.submit(*partition.next())
        if rnd.random() < 0.2:
            ingest.flush()
            projections.catch_up()
    ingest.flush()
    assert ingest.counts.charges == 40


@dataclass
class HoldModel:
    """A simple sequential model of the organisation."""

    balance: int = 0
    holds: dict[str, int] = field(default_factory=dict)
    available_at: dict[int, int] = field(default_factory=dict)
    reported: Counter[str] = field(default_factory=Counter)
    """Photos in a run's messages, with or without a hold."""

    @property
    def available(self) -> int:
        return self.balance - sum(self.holds.values())

    def apply(self, version: int, event: Any) -> None:
        """Apply one event of the history."""
        name = type(event).__name__
        if isinstance(event, UsageCharged):
            self.balance -= event.credits
            if event.from_hold:
                self.holds[str(event.hold_id)] -= event.from_hold
            if _is_message(event):
                self.reported[event.run_id] += event.photos
        elif isinstance(event, CreditsGranted | CreditsPurchased | ChargeRefunded):
            self.balance += event.credits
        elif name == "HoldPlaced":
            assert event.credits <= max(self.available, 0), "more credits were held than available"
            if event.request.mode is HoldMode.ALL_OR_NOTHING:
                assert event.credits == event.request.credits
            else:
                assert event.credits == min(event.request.credits, max(self.available, 0))
            self.holds[event.hold_id] = event.credits
        elif name in ("HoldSettled", "HoldReleased", "HoldExpired"):
            assert self.holds.pop(event.hold_id) == event.released
            if name == "HoldSettled":
                assert event.unreported_photos == max(0, event.photos - self.reported[event.run_id])
        self.available_at[version] = self.available


@pytest.mark.parametrize("seed", range(4))
def test_every_response_fits_one_serial_order(ingest_env: IngestEnvironment, seed: int) -> None:
    rnd = Random(seed)
    writers = [
        Writer(ingest_env.open_ledger(), ingest_env, number, Random(rnd.random()))
        for number in range(WRITERS)
    ]
    with ThreadPoolExecutor(WRITERS + 1) as threads:
        running = [threads.submit(writer.run) for writer in writers]
        running.append(threads.submit(publish, ingest_env, writers, rnd))
        for each in running:
            each.result(120)

    organisation = ingest_env.ledger.organisation(ORG)
    organisation.check_invariants()
    history = list(ingest_env.ledger.events.get(organisation.id))
    book, balance_at = HoldModel(), {}
    for envelope in history:
        book.apply(envelope.originator_version, envelope.event)  # type: ignore[attr-defined]
        balance_at[envelope.originator_version] = book.balance
    assert (organisation.balance, organisation.available) == (book.balance, book.available)

    for recorded in (answer for writer in writers for answer in writer.answers):
        assert recorded.balance == balance_at[recorded.version], recorded
        assert recorded.available == book.available_at[recorded.version], recorded
    for before, after, least in (refusal for writer in writers for refusal in writer.refusals):
        assert any(max(book.available_at[version], 0) < least for version in range(before, after + 1))
    messages = [event for event in (envelope.event for envelope in history) if _is_message(event)]  # type: ignore[attr-defined]
    assert len({event.cause for event in messages}) == len(messages) == 40


def _is_message(event: Any) -> bool:
    return isinstance(event, UsageCharged) and event.cause.startswith("m-")
