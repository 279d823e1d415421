"""An organisation against a model that counts single credits.

The model shares no code with the ledger: its purse is a list of credits, each tagged with the lot it
came in, and a debt. Every decision is taken on a fork, replayed on the original, and compared.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from domain.catalogue import FactCodec
from domain.errors import RefundExceedsCharge
from domain.facts import (
    ChargeRefunded,
    GrantKind,
    Plan,
    Request,
    UsageCharged,
)
from domain.money import Cost, Currency
from domain.organisation import Event, Organisation, lot_opened_by
from domain.rate_card import UsageType
from domain.usage import Usage
from tests.unit.domain.builders import state_of
from tests.usage_reports import usage_report

FREE, PAID = 0, 1
ZONES = ["UTC", "Asia/Kolkata", "America/New_York", "Pacific/Chatham"]
CODEC = FactCodec()


class Credit(NamedTuple):
    """One credit and the lot it came in; credits are spent in the order of these fields."""

    kind: int
    lot: int


class Purse:
    """What an organisation has, credit by credit."""

    def __init__(self) -> None:
        self.credits: list[Credit] = []
        self.debt = 0
        self.size_of_lot: Counter[int] = Counter()

    @property
    def balance(self) -> int:
        return len(self.credits) - self.debt

    def put(self, credit: Credit) -> bool:
        """Take in a credit; it pays the debt first. Return whether it was kept."""
        if self.debt:
            self.debt -= 1
            return False
        self.credits.append(credit)
        self.credits.sort()
        return True

    def add(self, kind: int, lot: int, number: int) -> None:
        for _ in range(number):
            self.size_of_lot[lot] += self.put(Credit(kind, lot))

    def spend(self, number: int) -> list[Credit | None]:
        """Return the credits spent, in order; None is one that was not there."""
        spent: list[Credit | None] = []
        for _ in range(number):
            if self.credits:
                spent.append(self.credits.pop(0))
            else:
                self.debt += 1
                spent.append(None)
        return spent

    def undo(self, spent: list[Credit | None], lot: int) -> None:
        """Give credits back, the last spent first; one that was not there comes as a free one."""
        for credit in reversed(spent):
            if credit is None:
                self.add(FREE, lot, 1)
            else:
                self.put(credit)


class Runs:
    """What each run has used and paid, as an exact fraction; forgotten 90 days after its last message."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, UsageType, int], tuple[int, int, datetime]] = {}

    def price(self, usage: Usage, rate_millionths: int, now: datetime) -> int:
        rate = Fraction(rate_millionths, 1_000_000)
        if rate.denominator == 1:
            return int(usage.photos * rate)
        key = (usage.run_id, usage.usage_type, rate_millionths)
        if key not in self.known:
            self.known = {k: v for k, v in self.known.items() if now - v[2] <= timedelta(days=90)}
        photos, paid, _ = self.known.get(key, (0, 0, now))
        owed = ceil((photos + usage.photos) * rate)
        self.known[key] = (photos + usage.photos, owed, now)
        return owed - paid


amounts = st.integers(1, 12)
rates = st.sampled_from([0, 1, 100_000, 333_333, 500_000, 999_999, 1_000_000, 1_500_000, 2_000_000])


class OrganisationMachine(RuleBasedStateMachine):
    @initialize(trial_credits=st.integers(0, 12), time_zone=st.sampled_from(ZONES))
    def open(self, trial_credits: int, time_zone: str) -> None:
        self.now = datetime(2026, 10, 31, 18, tzinfo=UTC)
        self.purse = Purse()
        self.runs = Runs()
        self.time_zone = time_zone
        self.plan = Plan.TRIAL
        self.price_millionths = 20_000
        self.spent: dict[int, list[Credit | None]] = {}
        self.charges: list[Event] = []
        self.stored: list[tuple[str, bytes]] = []
        self.snapshot: tuple[int, str, bytes] | None = None
        self.organisation = Organisation.open(
            "org-4711",
            time_zone=time_zone,
            currency=Currency.USD,
            price_millionths=self.price_millionths,
            trial_credits=trial_credits,
            request=self.request(),
        )
        self.store(self.organisation.collect_events())
        self.purse.add(FREE, 2, trial_credits)

    # ---------------------------------------------------------------------------------- helpers

    def request(self) -> Request:
        return Request(self.now, "u-1", "request-1")

    def store(self, events: Any) -> None:
        self.stored += [(CODEC.topic_of[type(event.fact)], CODEC.encode(event.fact)) for event in events]

    def events(self, after: int = 0) -> list[Event]:
        """Return the history as it comes back from the store."""
        return [
            Event(self.organisation.id, number, CODEC.decode(topic, state))
            for number, (topic, state) in enumerate(self.stored[after:], after + 1)
        ]

    def decide(self, decide: Any) -> Event:
        """Decide on a fork, see that the original stays as it was, and bring it up by the events alone."""
        before = state_of(self.organisation)
        fork = self.organisation.fork()
        event: Event = decide(fork)
        decided = fork.collect_events()
        assert state_of(self.organisation) == before
        assert self.organisation.collect_events() == []
        assert event in decided
        for each in decided:
            each.mutate(self.organisation)
        assert state_of(self.organisation) == state_of(fork)
        assert self.organisation.balance - before["balance"] == sum(e.fact.balance_delta for e in decided)
        self.store(decided)
        self.organisation = fork
        return event

    # ------------------------------------------------------------------------------------ rules

    @rule(number=amounts, kind=st.sampled_from(GrantKind))
    def grant(self, number: int, kind: GrantKind) -> None:
        event = self.decide(lambda org: org.grant(number, kind, "goodwill", self.request()))
        self.purse.add(FREE, event.originator_version, number)

    @rule(number=amounts)
    def purchase(self, number: int) -> None:
        event = self.decide(
            lambda org: org.purchase(
                number,
                payment_id="pay-1",
                order_id="order-1",
                gateway="razorpay",
                unit_price_millionths=org.price_millionths,
                cost=Cost(2 * number, 0),
                currency=Currency.USD,
                request=self.request(),
            )
        )
        self.purse.add(PAID, event.originator_version, number)
        if self.plan is Plan.TRIAL:
            self.plan = Plan.PAY_AS_YOU_GO

    @rule(
        photos=st.integers(0, 15),
        rate=rates,
        run=st.sampled_from(["run-1", "run-2", "run-3"]),
        usage_type=st.sampled_from([UsageType.PHOTO_PROCESSING, UsageType.WATERMARK_REPROCESS]),
        ago=st.timedeltas(timedelta(0), timedelta(days=400)),
    )
    def charge(self, photos: int, rate: int, run: str, usage_type: UsageType, ago: timedelta) -> None:
        report = usage_report(
            message_id="m-1",
            run_id=run,
            usage_type=usage_type,
            photos=photos,
            occurred_at=self.now - ago,
        )
        event = self.decide(lambda org: org.charge(report, rate, self.now))
        fact = event.fact
        assert isinstance(fact, UsageCharged)

        spent = self.purse.spend(self.runs.price(report.usage, rate, self.now))
        assert fact.credits == len(spent)
        drawn = [portion.lot for portion in fact.draws for _ in range(portion.credits)]
        assert drawn == [credit.lot for credit in spent if credit]
        assert all(portion.credits > 0 for portion in fact.draws)
        assert fact.overdraft == spent.count(None)
        assert fact.day == self.day_of(report.occurred_at)
        self.spent[event.originator_version] = spent
        self.charges.append(event)

    def day_of(self, moment: datetime) -> date:
        return moment.astimezone(ZoneInfo(self.time_zone)).date()

    @precondition(lambda self: any(self.spent.values()))
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        charge = data.draw(st.sampled_from([c for c in self.charges if self.spent[c.originator_version]]))
        spent = self.spent[charge.originator_version]
        number = data.draw(st.none() | st.integers(1, len(spent)))
        before = self.purse.debt

        event = self.refund_of(charge, number)
        fact = event.fact

        assert isinstance(fact, ChargeRefunded)
        kept = len(spent) - (len(spent) if number is None else number)
        self.purse.undo(spent[kept:], event.originator_version)
        self.spent[charge.originator_version] = spent[:kept]
        assert fact.credits == len(spent) - kept
        assert fact.covered == before - self.purse.debt
        assert fact.covered + sum(lot.remaining for lot in fact.returned) == fact.credits

    @precondition(lambda self: self.charges)
    @rule(data=st.data(), excess=st.integers(1, 3))
    def refund_too_much(self, data: st.DataObject, excess: int) -> None:
        charge = data.draw(st.sampled_from(self.charges))
        left = len(self.spent[charge.originator_version])
        before = state_of(self.organisation)
        with pytest.raises(RefundExceedsCharge):
            self.refund_of(charge, left + excess)
        assert state_of(self.organisation) == before

    def refund_of(self, charge: Event, number: int | None) -> Event:
        history = self.events()
        fact = history[charge.originator_version - 1].fact
        assert isinstance(fact, UsageCharged)
        earlier = [
            event.fact
            for event in history
            if isinstance(event.fact, ChargeRefunded) and event.fact.charge == charge.originator_version
        ]
        opened_lots = [lot for portion in fact.draws for lot in lot_opened_by(history[portion.lot - 1])]
        return self.decide(
            lambda org: org.refund(
                history[charge.originator_version - 1],
                number,
                earlier_refunds=earlier,
                opened_lots=opened_lots,
                reason="blurred",
                request=self.request(),
            )
        )

    @rule(price_millionths=st.integers(0, 3_000_000))
    def change_price(self, price_millionths: int) -> None:
        self.decide(lambda org: org.change_price(price_millionths, self.request()))
        self.price_millionths = price_millionths

    @rule(plan=st.sampled_from(Plan))
    def change_plan(self, plan: Plan) -> None:
        self.decide(lambda org: org.change_plan(plan, None, self.request()))
        self.plan = plan

    @rule(time_zone=st.sampled_from(ZONES))
    def change_time_zone(self, time_zone: str) -> None:
        self.decide(lambda org: org.change_time_zone(time_zone, self.request()))
        self.time_zone = time_zone

    @rule(days=st.sampled_from([0.01, 1, 30, 60, 90, 91]))
    def wait(self, days: float) -> None:
        self.now += timedelta(days=days)

    @rule()
    def take_snapshot(self) -> None:
        snapshot = self.organisation.snapshot()
        topic = CODEC.topic_of[type(snapshot.fact)]
        self.snapshot = (snapshot.originator_version, topic, CODEC.encode(snapshot.fact))

    # ------------------------------------------------------------------------------- invariants

    @invariant()
    def the_model_agrees(self) -> None:
        organisation, purse = self.organisation, self.purse
        organisation.check_invariants()
        assert organisation.balance == organisation.available == purse.balance
        assert organisation.overdraft == purse.debt
        left = Counter(purse.credits)
        assert [(lot.kind, lot.number, lot.remaining) for lot in organisation.lots] == [
            (credit.kind, credit.lot, left[credit]) for credit in sorted(left)
        ]
        assert all(lot.size == purse.size_of_lot[lot.number] for lot in organisation.lots)
        assert {
            key: (total.photos, total.credits, total.last_recorded_at)
            for key, total in organisation.run_totals.items()
        } == self.runs.known
        assert organisation.plan is self.plan
        assert organisation.time_zone == self.time_zone
        assert organisation.price_millionths == self.price_millionths

    @invariant()
    def the_books_are_the_sum_of_the_events(self) -> None:
        history = self.events()
        assert sum(event.fact.balance_delta for event in history) == self.organisation.balance
        charged = {e.originator_version: e.fact.credits for e in history if isinstance(e.fact, UsageCharged)}
        refunded: Counter[int] = Counter()
        for event in history:
            if isinstance(event.fact, ChargeRefunded):
                refunded[event.fact.charge] += event.fact.credits
        assert all(refunded[number] <= charged[number] for number in refunded)

    @invariant()
    def replay_gives_the_same_organisation(self) -> None:
        replayed: Organisation | None = None
        for event in self.events():
            replayed = event.mutate(replayed)
        assert replayed is not None
        assert state_of(replayed) == state_of(self.organisation)

    @invariant()
    def so_does_the_latest_snapshot_with_what_came_after(self) -> None:
        if self.snapshot is None:
            return
        version, topic, state = self.snapshot
        replayed = Event(self.organisation.id, version, CODEC.decode(topic, state)).mutate(None)
        for event in self.events(after=version):
            replayed = event.mutate(replayed)
        assert state_of(replayed) == state_of(self.organisation)


TestOrganisation = OrganisationMachine.TestCase
TestOrganisation.settings = settings(max_examples=300, stateful_step_count=40)
