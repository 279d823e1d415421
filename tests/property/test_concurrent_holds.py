"""Eight writers on one organisation: every answer must fit one serial order, the history's own.

A model that knows nothing of lots or events plays the acknowledged commands in the order of their versions,
and says what each should have answered. A refusal has no version: it must fit some moment while it was asked.
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

from domain.errors import HoldClosed, InsufficientCredits, RefundExceedsCharge
from domain.facts import ChargeRefunded, CreditsGranted, CreditsPurchased, GrantKind, Request, UsageCharged
from domain.holds import HoldMode, HoldRequest
from domain.ledger import Ledger, Recorded
from domain.ports import Once
from domain.rate_card import RateCard, UsageType
from projections.runner import ProjectionRunner
from tests.integration.consumers.lab import Lab
from tests.unit.consumers.records import usage_record

ORG = "org-1"
WRITERS = 7  # and the usage consumer
STEPS = 14
TRIAL = 60


@pytest.fixture
def lab(migrated_database: str, service_database: str) -> Iterator[Lab]:
    lab = Lab(migrated_database, service_database)
    lab.open(ORG, trial_credits=TRIAL)
    yield lab
    lab.close()


@dataclass
class Writer:
    """One caller of the API, who also sends some requests twice."""

    ledger: Ledger
    lab: Lab
    number: int
    rnd: Random
    holds: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[tuple[int, int, int]] = field(default_factory=list)
    """Version before, version after, credits asked for."""
    answers: list[Recorded] = field(default_factory=list)

    def run(self) -> None:
        for step in range(STEPS):
            action = self.rnd.choice(
                [self.place, self.place, self.close, self.grant, self.purchase, self.refund]
            )
            action(step)

    def request(self, step: int) -> Request:
        return Request(self.lab.now, None, f"request-{self.number}-{step}")

    def twice(self, step: int, command: Any) -> None:
        """Send a request, and perhaps again: the second answer is the first."""
        once = Once("test", f"{self.number}-{step}", b"asked")
        first = command(once)
        self.answers.append(first.recorded)
        if self.rnd.random() < 0.3:
            again = command(once)
            assert (again.recorded, again.repeated) == (first.recorded, True)

    def place(self, step: int) -> None:
        run_id = f"run-{self.number}-{step}"
        mode = self.rnd.choice(list(HoldMode))
        number = self.rnd.randrange(1, 40)
        wanted = HoldRequest(run_id, number, mode, UsageType.PHOTO_PROCESSING, number, True, 1, "M", None)
        before = self.ledger.organisation(ORG).version
        try:
            self.twice(
                step,
                lambda once: self.ledger.place_hold(ORG, wanted, request=self.request(step), once=once),
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
                lambda once: self.ledger.settle_hold(
                    ORG,
                    hold_id,
                    photos,
                    rates=RateCard(),
                    request=self.request(step),
                    once=once,
                ),
            )
        else:
            self.twice(
                step,
                lambda once: self.ledger.release_hold(ORG, hold_id, request=self.request(step), once=once),
            )
        with pytest.raises(HoldClosed):
            self.ledger.release_hold(ORG, hold_id, request=self.request(step))

    def grant(self, step: int) -> None:
        self.twice(
            step,
            lambda once: self.ledger.grant(
                ORG, 5, kind=GrantKind.ADMIN, reason="r", request=self.request(step), once=once
            ),
        )

    def purchase(self, step: int) -> None:
        self.twice(
            step,
            lambda once: self.ledger.record_purchase(
                ORG,
                9,
                payment_id=f"pay-{self.number}-{step}",
                order_id="o",
                gateway="g",
                request=self.request(step),
                once=once,
            ),
        )

    def refund(self, step: int) -> None:
        organisation = self.ledger.organisation(ORG)
        events = list(self.ledger.events.get(organisation.id))
        charges = [e for e in events if isinstance(e.fact, UsageCharged) and e.fact.credits]  # type: ignore[attr-defined]
        if not charges:
            return
        charge = self.rnd.choice(charges)
        with suppress(RefundExceedsCharge):
            self.twice(
                step,
                lambda once: self.ledger.refund_charge(
                    ORG,
                    charge.originator_version,
                    1,
                    reason="r",
                    request=self.request(step),
                    once=once,
                ),
            )


def publish(lab: Lab, writers: list[Writer], rnd: Random) -> None:
    """Charge usage of holds and of runs without one, some of it twice, as the consumer would."""
    partition, ingest = lab.partition(), lab.ingest()
    projections = ProjectionRunner(lab.service)
    sent = []
    for number in range(40):
        named = [hold for writer in writers for hold in list(writer.holds)]
        hold_id, run_id = (None, f"run-{rnd.randrange(WRITERS)}-{rnd.randrange(STEPS)}")  # perhaps held later
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
class Book:
    """The organisation as one clerk would keep it."""

    balance: int = 0
    holds: dict[str, int] = field(default_factory=dict)
    available_at: dict[int, int] = field(default_factory=dict)
    reported: Counter[str] = field(default_factory=Counter)
    """Photos in a run's messages, whether it has a hold or not."""

    @property
    def available(self) -> int:
        return self.balance - sum(self.holds.values())

    def play(self, version: int, fact: Any) -> None:
        """Enter one line of the history, read as plain words."""
        name = type(fact).__name__
        if isinstance(fact, UsageCharged):
            self.balance -= fact.credits
            if fact.from_hold:
                self.holds[str(fact.hold_id)] -= fact.from_hold
            if _is_message(fact):
                self.reported[fact.run_id] += fact.photos
        elif isinstance(fact, CreditsGranted | CreditsPurchased | ChargeRefunded):
            self.balance += fact.credits
        elif name == "HoldPlaced":
            assert fact.credits <= max(self.available, 0), "more was held than was available"
            if fact.request.mode is HoldMode.ALL_OR_NOTHING:
                assert fact.credits == fact.request.credits
            else:
                assert fact.credits == min(fact.request.credits, max(self.available, 0))
            self.holds[fact.hold_id] = fact.credits
        elif name in ("HoldSettled", "HoldReleased", "HoldExpired"):
            assert self.holds.pop(fact.hold_id) == fact.released
            if name == "HoldSettled":
                assert fact.ahead == max(0, fact.photos - self.reported[fact.run_id])
        self.available_at[version] = self.available


@pytest.mark.parametrize("seed", range(4))
def test_every_answer_fits_one_serial_order(lab: Lab, seed: int) -> None:
    rnd = Random(seed)
    writers = [Writer(lab.open_ledger(), lab, number, Random(rnd.random())) for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS + 1) as threads:
        running = [threads.submit(writer.run) for writer in writers]
        running.append(threads.submit(publish, lab, writers, rnd))
        for each in running:
            each.result(120)

    organisation = lab.ledger.organisation(ORG)
    organisation.check_invariants()
    history = list(lab.ledger.events.get(organisation.id))
    book, balance_at = Book(), {}
    for event in history:
        book.play(event.originator_version, event.fact)  # type: ignore[attr-defined]
        balance_at[event.originator_version] = book.balance
    assert (organisation.balance, organisation.available) == (book.balance, book.available)

    for recorded in (answer for writer in writers for answer in writer.answers):
        assert recorded.balance == balance_at[recorded.version], recorded
        assert recorded.available == book.available_at[recorded.version], recorded
    for before, after, least in (refusal for writer in writers for refusal in writer.refusals):
        assert any(max(book.available_at[version], 0) < least for version in range(before, after + 1))
    messages = [fact for fact in (event.fact for event in history) if _is_message(fact)]  # type: ignore[attr-defined]
    assert len({fact.cause for fact in messages}) == len(messages) == 40


def _is_message(fact: Any) -> bool:
    return isinstance(fact, UsageCharged) and fact.cause.startswith("m-")
