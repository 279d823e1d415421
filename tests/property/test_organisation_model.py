"""An organisation against a model that counts single credits.

The model shares no code with the ledger: it is a list of single credits, each with its lot, and a debt.
Every decision is made on a fork, replayed on the original, and compared.
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

from domain.credits.errors import (
    HoldConflict,
    HoldNotFound,
    InsufficientCredits,
    RefundExceedsCharge,
)
from domain.credits.events import (
    BalanceWentLow,
    ChargeRefunded,
    CreditsExhausted,
    CreditsReplenished,
    GrantKind,
    HoldPlaced,
    HoldReleased,
    HoldSettled,
    UsageCharged,
)
from domain.credits.holds import HoldMode, HoldRequest
from domain.credits.organisation import Organisation, evolve
from domain.credits.refund_allocation import lot_opened_by
from domain.credits.usage import PhotoEvent, Usage, UsageReport, User
from domain.event_catalogue import EventCodec
from domain.pricing.plans import Plan
from domain.pricing.rate_card import UsageType
from domain.shared.aggregate import DomainEvent, EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.money import Cost, Currency
from tests.unit.credits.builders import state_of
from tests.usage_reports import usage_report

FREE, PAID = 0, 1
ZONES = ["UTC", "Asia/Kolkata", "America/New_York", "Pacific/Chatham"]
CODEC = EventCodec()


class Credit(NamedTuple):
    """One credit and its lot. Credits are spent in the order of these fields."""

    kind: int
    lot: int


class LotModel:
    """The single credits of an organisation."""

    def __init__(self) -> None:
        self.credits: list[Credit] = []
        self.debt = 0
        self.size_of_lot: Counter[int] = Counter()

    @property
    def balance(self) -> int:
        return len(self.credits) - self.debt

    def put(self, credit: Credit) -> bool:
        """Add a credit; it pays the debt first. Return whether it is still available."""
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
        """Return the spent credits, in order; None is a credit of overdraft."""
        spent: list[Credit | None] = []
        for _ in range(number):
            if self.credits:
                spent.append(self.credits.pop(0))
            else:
                self.debt += 1
                spent.append(None)
        return spent

    def undo(self, spent: list[Credit | None], lot: int) -> None:
        """Return credits, the last spent first. A credit of paid overdraft becomes a free one."""
        for credit in reversed(spent):
            if credit is None:
                self.add(FREE, lot, 1)
            else:
                self.put(credit)


class RunModel:
    """Usage and charges of each run, as an exact fraction; dropped 90 days after its last message."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, UsageType, int], tuple[int, int, datetime]] = {}

    def price(self, usage: Usage, new_photos: int, rate_millionths: int, now: datetime) -> int:
        rate = Fraction(rate_millionths, 1_000_000)
        if rate.denominator == 1:
            return int(new_photos * rate)
        key = (usage.run_id, usage.usage_type, rate_millionths)
        if key not in self.known:
            self.known = {k: v for k, v in self.known.items() if now - v[2] <= timedelta(days=90)}
        photos, paid, _ = self.known.get(key, (0, 0, now))
        owed = ceil((photos + new_photos) * rate)
        self.known[key] = (photos + new_photos, owed, now)
        return owed - paid


class HoldModel:
    """A hold: the credits that its run may still use, and when it expires."""

    def __init__(self, hold_id: str, left: int, ends: datetime, photos: Counter[UsageType]) -> None:
        self.hold_id = hold_id
        self.left = left
        self.ends = ends
        self.photos = photos


class HoldsModel:
    """Open holds by run, and photos that were charged before their messages."""

    def __init__(self) -> None:
        self.open: dict[str, HoldModel] = {}
        self.paid_ahead: dict[tuple[str, UsageType], tuple[int, datetime]] = {}

    @property
    def total(self) -> int:
        return sum(reservation.left for reservation in self.open.values())

    def expire(self, now: datetime) -> None:
        self.open = {run: held for run, held in self.open.items() if held.ends > now}

    def use_paid(self, run: str, usage_type: UsageType, photos: int) -> int:
        """Return how many of the photos were charged before, and remove them."""
        paid, at = self.paid_ahead.pop((run, usage_type), (0, NEVER))
        used = min(paid, photos)
        if paid > used:
            self.paid_ahead[run, usage_type] = (paid - used, at)
        return used

    def take(self, run: str, hold_id: str | None, credits_count: int) -> int:
        held = self.open.get(run)
        if held is None or held.hold_id != hold_id:
            return 0
        taken = min(held.left, credits_count)
        held.left -= taken
        return taken

    def pay_ahead(self, run: str, usage_type: UsageType, photos: int, now: datetime) -> None:
        kept = {key: value for key, value in self.paid_ahead.items() if now - value[1] <= timedelta(days=90)}
        self.paid_ahead = {**kept, (run, usage_type): (photos, now)}


amounts = st.integers(1, 12)
rates = st.sampled_from([0, 1, 100_000, 333_333, 500_000, 999_999, 1_000_000, 1_500_000, 2_000_000])


runs = st.sampled_from(["run-1", "run-2", "run-3"])
usage_types = st.sampled_from([UsageType.PHOTO_PROCESSING, UsageType.WATERMARK_REPROCESS])
NEVER = datetime.min.replace(tzinfo=UTC)
CROSSINGS = (BalanceWentLow, CreditsExhausted, CreditsReplenished)


def _latest(organisation: Organisation, _: Any, of: type[Any] = HoldPlaced) -> EventEnvelope:
    """Return the event of a decision that returns something else."""
    return next(envelope for envelope in reversed(organisation._pending) if isinstance(envelope.event, of))


class OrganisationMachine(RuleBasedStateMachine):
    @initialize(trial_credits=st.integers(0, 12), time_zone=st.sampled_from(ZONES))
    def open(self, trial_credits: int, time_zone: str) -> None:
        self.now = datetime(2026, 10, 31, 18, tzinfo=UTC)
        self.purse = LotModel()
        self.runs = RunModel()
        self.reservations = HoldsModel()
        self.threshold = 0
        self.time_zone = time_zone
        self.plan = Plan.TRIAL
        self.price_millionths = 20_000
        self.spent: dict[int, list[Credit | None]] = {}
        self.charges: list[EventEnvelope] = []
        self.stored: list[tuple[str, bytes]] = []
        self.snapshot: tuple[int, str, bytes] | None = None
        self.organisation = Organisation.open(
            "org-4711",
            time_zone=time_zone,
            currency=Currency.USD,
            price_millionths=self.price_millionths,
            trial_credits=trial_credits,
            context=self.request(),
        )
        self.store(self.organisation.collect_events())
        self.purse.add(FREE, 2, trial_credits)

    # ---------------------------------------------------------------------------------- helpers

    def request(self) -> CommandContext:
        return CommandContext(self.now, "u-1", "request-1")

    def store(self, events: Any) -> None:
        self.stored += [
            (CODEC.topic_of[type(envelope.event)], CODEC.encode(envelope.event)) for envelope in events
        ]

    def events(self, after: int = 0) -> list[EventEnvelope]:
        """Return the history as the store returns it."""
        return [
            EventEnvelope(self.organisation.id, number, CODEC.decode(topic, state))
            for number, (topic, state) in enumerate(self.stored[after:], after + 1)
        ]

    def decide(self, decide: Any) -> EventEnvelope:
        """Decide on a fork, check that the original does not change, and apply the events to the original."""
        before, available = state_of(self.organisation), self.organisation.available
        fork = self.organisation.fork()
        envelope: EventEnvelope = decide(fork)
        decided = fork.collect_events()
        self.reservations.expire(self.now)
        self.check_crossings(available, fork.available, [each.event for each in decided])
        assert state_of(self.organisation) == before
        assert self.organisation.collect_events() == []
        assert envelope in decided
        for each in decided:
            each.mutate(self.organisation)
        assert state_of(self.organisation) == state_of(fork)
        assert self.organisation.balance - before["balance"] == sum(e.event.balance_delta for e in decided)
        self.store(decided)
        self.organisation = fork
        return envelope

    def check_crossings(self, before: int, after: int, recorded: list[DomainEvent]) -> None:
        """Check that each crossing has one event, with the final balance."""
        marked = {type(event): event.available for event in recorded if isinstance(event, CROSSINGS)}
        went_low = after < self.threshold <= before and after > 0
        assert marked == {
            kind: after
            for kind, crossed in (
                (BalanceWentLow, went_low),
                (CreditsExhausted, after <= 0 < before),
                (CreditsReplenished, before <= 0 < after),
            )
            if crossed
        }
        assert sum(isinstance(event, CROSSINGS) for event in recorded) == len(marked)

    # ------------------------------------------------------------------------------------ rules

    @rule(number=amounts, kind=st.sampled_from(GrantKind))
    def grant(self, number: int, kind: GrantKind) -> None:
        envelope = self.decide(lambda org: org.grant(number, kind, "goodwill", self.request()))
        self.purse.add(FREE, envelope.originator_version, number)

    @rule(number=amounts)
    def purchase(self, number: int) -> None:
        envelope = self.decide(
            lambda org: org.purchase(
                number,
                payment_id="pay-1",
                order_id="order-1",
                gateway="razorpay",
                unit_price_millionths=org.price_millionths,
                cost=Cost(2 * number, 0),
                currency=Currency.USD,
                context=self.request(),
            )
        )
        self.purse.add(PAID, envelope.originator_version, number)
        if self.plan is Plan.TRIAL:
            self.plan = Plan.PAY_AS_YOU_GO

    @rule(
        photos=st.integers(0, 15),
        rate=rates,
        run=runs,
        usage_type=usage_types,
        ago=st.timedeltas(timedelta(0), timedelta(days=400)),
        names_hold=st.booleans(),
    )
    def charge(  # noqa: PLR0917 - hypothesis draws them by name
        self, photos: int, rate: int, run: str, usage_type: UsageType, ago: timedelta, names_hold: bool
    ) -> None:
        held = self.reservations.open.get(run)
        hold_id = held.hold_id if held is not None and names_hold else None
        report = usage_report(
            message_id="m-1",
            run_id=run,
            usage_type=usage_type,
            photos=photos,
            occurred_at=self.now - ago,
            hold_id=hold_id,
        )
        envelope = self.decide(lambda org: org.charge(report, rate, self.now))
        self.check_charge(envelope, report, rate)

    def check_charge(self, envelope: EventEnvelope, report: UsageReport, rate: int) -> None:
        event = envelope.event
        assert isinstance(event, UsageCharged)
        usage = report.usage
        paid = self.reservations.use_paid(usage.run_id, usage.usage_type, usage.photos)
        spent = self.purse.spend(self.runs.price(usage, usage.photos - paid, rate, self.now))
        taken = self.reservations.take(usage.run_id, usage.hold_id, len(spent))
        if usage.run_id in self.reservations.open:
            self.reservations.open[usage.run_id].photos[usage.usage_type] += usage.photos
        assert (event.credits, event.settled, event.from_hold) == (len(spent), paid, taken)
        drawn = [allocation.lot for allocation in event.draws for _ in range(allocation.credits)]
        assert drawn == [credit.lot for credit in spent if credit]
        assert all(allocation.credits > 0 for allocation in event.draws)
        assert event.overdraft == spent.count(None)
        assert event.day == self.day_of(report.occurred_at)
        self.spent[envelope.originator_version] = spent
        self.charges.append(envelope)

    @rule(number=st.integers(0, 15), mode=st.sampled_from(HoldMode), run=runs, hours=st.sampled_from([1, 24]))
    def place_hold(self, number: int, mode: HoldMode, run: str, hours: int) -> None:
        reported = self.reported(run)
        still_open = {name: held for name, held in self.reservations.open.items() if held.ends > self.now}
        wanted = HoldRequest(run, number, mode, None, None, True, 1, "Marathon", "u-17")
        ends = self.now + timedelta(hours=hours)
        free = max(self.purse.balance - sum(held.left for held in still_open.values()), 0)
        before = still_open.get(run)
        if before is None and number > free and (mode is HoldMode.ALL_OR_NOTHING or free == 0):
            with pytest.raises(InsufficientCredits):
                self.organisation.fork().place_hold(wanted, ends, self.request(), reported=reported)
            return
        if before is not None:
            existing = self.organisation.holds[run]
            if existing.request != wanted:
                with pytest.raises(HoldConflict):
                    self.organisation.fork().place_hold(wanted, ends, self.request(), reported=reported)
            else:
                again = self.organisation.fork().place_hold(wanted, ends, self.request(), reported=reported)
                assert again == existing
            return
        self.decide(lambda org: _latest(org, org.place_hold(wanted, ends, self.request(), reported=reported)))
        hold = self.organisation.holds[run]
        assert hold.size == min(number, free)
        self.reservations.open[run] = HoldModel(hold.hold_id, hold.size, ends, reported)

    def reported(self, run: str) -> Counter[UsageType]:
        """Return the photos that a run was charged so far, as the store returns them."""
        photos: Counter[UsageType] = Counter()
        for charge in self.charges:
            event = charge.event
            assert isinstance(event, UsageCharged)
            if event.run_id == run and event.rate_millionths:
                photos[event.usage_type] += event.photos - event.settled
        return photos

    @precondition(lambda self: self.reservations.open)
    @rule(data=st.data(), photos=st.integers(0, 20), rate=rates, usage_type=usage_types)
    def settle(self, data: st.DataObject, photos: int, rate: int, usage_type: UsageType) -> None:
        run, held = self.pick_open(data)
        if held.ends <= self.now:
            with pytest.raises(HoldNotFound):
                self.settle_on(self.organisation.fork(), held, photos, rate, usage_type)
            return
        unreported_photos = max(0, photos - held.photos[usage_type])
        self.decide(
            lambda org: _latest(org, self.settle_on(org, held, photos, rate, usage_type), of=HoldSettled)
        )
        if unreported_photos:
            charge = next(
                envelope for envelope in reversed(self.events()) if isinstance(envelope.event, UsageCharged)
            )
            usage = Usage(
                run,
                usage_type,
                unreported_photos,
                True,
                PhotoEvent(1, "Marathon"),
                User("u-17"),
                held.hold_id,
            )
            report = UsageReport("1.0", "s", "s", "t", "org-4711", self.now, usage)  # type: ignore[arg-type]
            self.check_charge(charge, report, rate)
            self.reservations.pay_ahead(run, usage_type, unreported_photos, self.now)
        del self.reservations.open[run]

    def settle_on(
        self, org: Organisation, held: HoldModel, photos: int, rate: int, usage_type: UsageType
    ) -> Any:
        return org.settle_hold(
            held.hold_id,
            photos,
            usage_type=usage_type,
            ai_search=True,
            rate_millionths=rate,
            context=self.request(),
        )

    @precondition(lambda self: self.reservations.open)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        run, held = self.pick_open(data)
        if held.ends <= self.now:
            with pytest.raises(HoldNotFound):
                self.organisation.fork().release_hold(held.hold_id, self.request())
            return
        self.decide(lambda org: _latest(org, org.release_hold(held.hold_id, self.request()), of=HoldReleased))
        del self.reservations.open[run]

    def pick_open(self, data: st.DataObject) -> tuple[str, HoldModel]:
        run = data.draw(st.sampled_from(sorted(self.reservations.open)))
        return run, self.reservations.open[run]

    @rule(threshold=st.integers(0, 20))
    def set_threshold(self, threshold: int) -> None:
        self.decide(lambda org: org.set_low_balance_threshold(threshold, self.request()))
        self.threshold = threshold

    def day_of(self, moment: datetime) -> date:
        return moment.astimezone(ZoneInfo(self.time_zone)).date()

    @precondition(lambda self: any(self.spent.values()))
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        charge = data.draw(st.sampled_from([c for c in self.charges if self.spent[c.originator_version]]))
        spent = self.spent[charge.originator_version]
        number = data.draw(st.none() | st.integers(1, len(spent)))
        before = self.purse.debt

        envelope = self.refund_of(charge, number)
        event = envelope.event

        assert isinstance(event, ChargeRefunded)
        kept = len(spent) - (len(spent) if number is None else number)
        self.purse.undo(spent[kept:], envelope.originator_version)
        self.spent[charge.originator_version] = spent[:kept]
        assert event.credits == len(spent) - kept
        assert event.overdraft_covered == before - self.purse.debt
        assert event.overdraft_covered + sum(lot.remaining for lot in event.returned) == event.credits

    @precondition(lambda self: self.charges)
    @rule(data=st.data(), excess=st.integers(1, 3))
    def refund_too_much(self, data: st.DataObject, excess: int) -> None:
        charge = data.draw(st.sampled_from(self.charges))
        left = len(self.spent[charge.originator_version])
        before = state_of(self.organisation)
        with pytest.raises(RefundExceedsCharge):
            self.refund_of(charge, left + excess)
        assert state_of(self.organisation) == before

    def refund_of(self, charge: EventEnvelope, number: int | None) -> EventEnvelope:
        history = self.events()
        event = history[charge.originator_version - 1].event
        assert isinstance(event, UsageCharged)
        earlier = [
            envelope.event
            for envelope in history
            if isinstance(envelope.event, ChargeRefunded)
            and envelope.event.charge == charge.originator_version
        ]
        opened_lots = [
            lot for allocation in event.draws for lot in lot_opened_by(history[allocation.lot - 1])
        ]
        return self.decide(
            lambda org: org.refund(
                history[charge.originator_version - 1],
                number,
                earlier_refunds=earlier,
                opened_lots=opened_lots,
                reason="blurred",
                context=self.request(),
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

    @rule(days=st.sampled_from([0.01, 0.05, 1, 30, 60, 90, 91]))
    def wait(self, days: float) -> None:
        self.now += timedelta(days=days)

    @rule()
    def take_snapshot(self) -> None:
        snapshot = self.organisation.snapshot()
        topic = CODEC.topic_of[type(snapshot.event)]
        self.snapshot = (snapshot.originator_version, topic, CODEC.encode(snapshot.event))

    # ------------------------------------------------------------------------------- invariants

    @invariant()
    def check_model(self) -> None:
        organisation, purse = self.organisation, self.purse
        organisation.check_invariants()
        assert organisation.balance == purse.balance
        # A due hold expires with the next decision; until then it counts.
        assert {run: hold.remaining for run, hold in organisation.holds.items()} == {
            run: held.left for run, held in self.reservations.open.items()
        }
        assert organisation.available == purse.balance - self.reservations.total
        assert {key: each.photos for key, each in organisation.settlements.items()} == {
            key: photos for key, (photos, _) in self.reservations.paid_ahead.items()
        }
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
    def check_balance_equals_event_sum(self) -> None:
        history = self.events()
        assert sum(envelope.event.balance_delta for envelope in history) == self.organisation.balance
        charged = {
            e.originator_version: e.event.credits for e in history if isinstance(e.event, UsageCharged)
        }
        refunded: Counter[int] = Counter()
        for envelope in history:
            if isinstance(envelope.event, ChargeRefunded):
                refunded[envelope.event.charge] += envelope.event.credits
        assert all(refunded[number] <= charged[number] for number in refunded)

    @invariant()
    def check_replay(self) -> None:
        replayed: Organisation | None = None
        for envelope in self.events():
            replayed = evolve(replayed, envelope)
        assert replayed is not None
        assert state_of(replayed) == state_of(self.organisation)

    @invariant()
    def check_snapshot_replay(self) -> None:
        if self.snapshot is None:
            return
        version, topic, state = self.snapshot
        replayed = evolve(None, EventEnvelope(self.organisation.id, version, CODEC.decode(topic, state)))
        for envelope in self.events(after=version):
            replayed = evolve(replayed, envelope)
        assert state_of(replayed) == state_of(self.organisation)


TestOrganisation = OrganisationMachine.TestCase
TestOrganisation.settings = settings(max_examples=300, stateful_step_count=40)
