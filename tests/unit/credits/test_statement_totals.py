"""Totals of a batch of charges, computed before any table is changed."""

from datetime import UTC, date, datetime, timedelta

from domain.pricing.rate_card import UsageType
from projections.credits.statement_totals import ExistingRun, StatementTotals
from projections.credits.usage_runs import RunChange, fold_runs
from projections.engine.event_log import LogEntry
from tests.histories import START, Account

STREAM = bytes(16)
JULY, AUGUST = date(2026, 7, 1), date(2026, 8, 1)


def entries(account: Account) -> list[LogEntry]:
    return [
        (envelope.originator_version, STREAM, envelope.originator_version, envelope.event)
        for envelope in account.collect()
    ]


def test_a_run_keeps_the_order_of_appearance_and_the_earliest_time() -> None:
    account = Account()
    account.charge(2, at=START, event_id=9)
    account.charge(3, at=START - timedelta(hours=1), event_id=4, usage_type=UsageType.AI_IMAGE_ROTATION)
    account.charge(5, at=START + timedelta(hours=1), event_id=9)

    (run,) = fold_runs(entries(account)).values()

    assert (run.event_ids, run.occurred_at) == ([9, 4], START - timedelta(hours=1))
    assert run.usage_types == [UsageType.PHOTO_PROCESSING, UsageType.AI_IMAGE_ROTATION]
    assert (run.credits, run.photos, run.first_version, run.last_version) == (10, 10, 2, 4)


def test_hidden_charges_neither_start_nor_extend_a_run() -> None:
    account = Account()
    account.charge(4, rate_millionths=0)
    account.charge(1)
    account.charge(0)

    (run,) = fold_runs(entries(account)).values()

    assert (run.first_version, run.last_version) == (3, 3)


def run_of(account: Account) -> RunChange:
    (run,) = fold_runs(entries(account)).values()
    return run


def test_a_known_run_adds_to_its_own_month_and_only_new_names_count() -> None:
    account = Account()
    account.charge(2, event_id=1, at=datetime(2026, 8, 3, tzinfo=UTC))
    account.charge(3, event_id=2, at=datetime(2026, 8, 4, tzinfo=UTC))
    sums = StatementTotals()
    sums.add((STREAM, "run-88"), run_of(account), ExistingRun(JULY, [UsageType.STORE_ORIGINALS], [1]))
    sums.count_new_events(set())

    card = sums.months[STREAM, JULY]
    assert (card.credits, card.photos, card.runs, card.events) == (5, 5, 0, 1)
    assert {key[1:] for key in sums.days} == {(date(2026, 8, 3), JULY), (date(2026, 8, 4), JULY)}
    assert [sums.events[STREAM, JULY, event_id].runs for event_id in (1, 2)] == [0, 1]
    (row,) = sums.runs
    assert row.event_ids == [1, 2]
    assert row.usage_types == [UsageType.STORE_ORIGINALS, UsageType.PHOTO_PROCESSING]


def test_a_photo_event_in_the_tables_is_not_counted_as_new() -> None:
    account = Account()
    account.charge(2, event_id=1, at=datetime(2026, 8, 3, tzinfo=UTC))
    sums = StatementTotals()
    sums.add((STREAM, "run-88"), run_of(account), None)
    sums.count_new_events({(STREAM, AUGUST, 1)})

    card = sums.months[STREAM, AUGUST]
    assert (card.runs, card.events, sums.events[STREAM, AUGUST, 1].runs) == (1, 0, 1)
