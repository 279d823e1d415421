"""Random histories, projected in random batches, equal a recount of the whole log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.credits.events import GrantKind, UsageCharged
from domain.pricing.plans import Plan
from domain.pricing.rate_card import UsageType
from domain.shared.aggregate import EventEnvelope
from projections.audit import invariants
from projections.engine.projector import Projector
from projections.registry import ALL_PROJECTIONS
from tests.histories import Account
from tests.integration.projections.conftest import Ledger
from tests.integration.projections.recount import projected, recount

ZONES = ("Asia/Kolkata", "America/New_York", "UTC")
RATES = (1_000_000, 100_000, 333_333, 2_000_000, 0)

# Near the ends of months and the hours of clock changes.
TURNS = (
    datetime(2026, 12, 31, 18, 30, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 8, 1, 0, tzinfo=UTC),
    datetime(2026, 8, 1, 4, tzinfo=UTC),
)

_examples = count()

moments = st.builds(
    lambda turn, seconds: turn + timedelta(seconds=seconds),
    st.sampled_from(TURNS),
    st.sampled_from([-86_400, -3_601, -1, 0, 1, 3_600, 86_400]),
)
accounts = st.sampled_from([0, 0, 0, 0, 1, 2])
charges = st.tuples(
    st.just("charge"),
    accounts,
    st.fixed_dictionaries(
        {
            "photos": st.sampled_from([1, 3, 250, 7, 0]),
            "run_id": st.sampled_from(["run-1", "run-2"]),
            "at": moments,
            "rate_millionths": st.sampled_from(RATES),
            "usage_type": st.sampled_from(UsageType),
            "event_id": st.integers(1, 3),
            "event_name": st.sampled_from(["City Marathon", 'Läufe \\ "&" 跑']),
            "user": st.sampled_from([None, "u-17"]),
        }
    ),
)
others = st.one_of(
    st.tuples(st.just("grant"), accounts, st.sampled_from(GrantKind)),
    st.tuples(st.just("purchase"), accounts, st.just(None)),
    st.tuples(st.just("refund"), accounts, st.integers(0, 100)),
    st.tuples(st.just("zone"), accounts, st.sampled_from(ZONES)),
    st.tuples(st.just("price"), accounts, st.integers(0, 5_000_000)),
    st.tuples(st.just("plan"), accounts, st.sampled_from([None, TURNS[0]])),
    st.tuples(st.just("project"), accounts, st.just(None)),
)
# Most steps must be charges. one_of would flatten its choices and make only one in eight a charge.
steps = st.lists(
    st.integers(0, 7).flatmap(lambda number: others if number == 0 else charges), min_size=20, max_size=60
)


def take(step: tuple[str, int, object], account: Account) -> None:
    match step:
        case ("charge", _, dict(fields)):
            account.charge(**fields)
        case ("grant", _, GrantKind() as kind):
            account.grant(75, kind)
        case ("purchase", _, _):
            account.purchase(1_000)
        case ("refund", _, int(number)):
            refund(account, number)
        case ("zone", _, str(zone)):
            account.organisation.change_time_zone(zone, account.request())
        case ("price", _, int(price)):
            account.organisation.change_price(price, account.request())
        case ("plan", _, datetime() | None as expires_at):
            account.organisation.change_plan(Plan.PRO, expires_at, account.request())


def refund(account: Account, number: int) -> None:
    """Refund a part of a charge that still has unrefunded credits, if there is one."""
    refundable: list[EventEnvelope] = [
        envelope
        for envelope in account.history
        if isinstance(envelope.event, UsageCharged) and account.refundable(envelope) > 0
    ]
    if refundable:
        charge = refundable[number % len(refundable)]
        account.refund(charge, 1 + number % account.refundable(charge))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, batch_size=st.sampled_from([100, 9, 5, 2, 1]))
def test_every_table_equals_a_recount(
    ledger: Ledger, steps: list[tuple[str, int, object]], batch_size: int
) -> None:
    example = next(_examples)
    organisations = [
        Account(f"org-{example}-{number}", time_zone=zone, trial_credits=100 * number)
        for number, zone in enumerate(ZONES)
    ]
    log = []
    with Projector(ledger.service, ALL_PROJECTIONS, batch_size=batch_size) as projector:
        for step in steps:
            account = organisations[step[1]]
            if step[0] == "project":
                projector.catch_up()
            take(step, account)
            events = account.collect()
            ledger.append_events(events)
            log += events
        for account in organisations:
            events = account.collect()
            ledger.append_events(events)
            log += events
        projector.catch_up()

    streams = [account.organisation.id for account in organisations]
    assert projected(ledger.connection, streams) == recount(log)
    assert invariants.check(ledger.connection) == []
