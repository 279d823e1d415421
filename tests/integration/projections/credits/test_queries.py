"""Edge cases of the queries: pages, cursors, unknown ids, and the number of rows they read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from domain.credits.errors import OrganisationNotFound
from domain.shared.errors import InvalidInput
from projections.connection import Connection
from projections.credits import queries as credit_queries
from projections.credits import transaction_queries
from projections.credits.read_models import PurchaseDetails, RefundDetails, TransactionKind
from projections.query.errors import RunNotFound
from tests.histories import START, Account
from tests.integration.projections.conftest import Ledger

JULY = date(2026, 7, 1)
ORG = "org-4711"

VIEWS: dict[str, Callable[[Connection, str], Any]] = {
    "balance": credit_queries.balance,
    "usage_summary": lambda connection, org: credit_queries.usage_summary(connection, org, 4, START),
    "daily_usage": lambda connection, org: credit_queries.daily_usage(
        connection, org, JULY, date(2027, 6, 30)
    ),
    "transactions": lambda connection, org: credit_queries.transactions(connection, org, None, None, 50),
    "charges": lambda connection, org: credit_queries.transaction_charges(
        connection, org, "run-88", None, 50
    ),
    "events of a month": lambda connection, org: credit_queries.event_usage(connection, org, JULY, None, 50),
    "events of all time": lambda connection, org: credit_queries.event_usage(connection, org, None, None, 50),
}


@pytest.fixture
def account(ledger: Ledger) -> Account:
    """Usage and additions at twelve times, two of each kind at each."""
    account = Account(trial_credits=200)
    for number in range(24):
        account.charge(
            number + 1, f"run-{number}", at=START + timedelta(seconds=number // 2), event_id=number + 1
        )
        account.now = START + timedelta(seconds=number // 2 - 1)
        account.grant(5)
    ledger.append(account)
    ledger.project()
    return account


def all_pages(read: Callable[[str | None], tuple[list[Any], str | None]]) -> list[Any]:
    entries: list[Any] = []
    cursor: str | None = None
    while True:
        page, cursor = read(cursor)
        entries += page
        if cursor is None:
            return entries


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
@pytest.mark.parametrize("kind", [None, *TransactionKind])
def test_pages_hold_every_transaction_once_newest_first(
    ledger: Ledger, account: Account, kind: TransactionKind | None, limit: int
) -> None:
    def read(cursor: str | None) -> tuple[list[Any], str | None]:
        page = credit_queries.transactions(ledger.connection, ORG, kind, cursor, limit)
        assert len(page.transactions) <= limit
        return page.transactions, page.next_cursor

    listed = all_pages(read)

    order = [(each.occurred_at, each.kind, each.reference) for each in listed]
    assert order == sorted(order, reverse=True)
    assert len(set(order)) == len(order) == {None: 49, TransactionKind.ADDITION: 25}.get(kind, 24)


@pytest.mark.parametrize("month", [None, JULY])
def test_pages_hold_every_photo_event_once_most_expensive_first(
    ledger: Ledger, account: Account, month: date | None
) -> None:
    def read(cursor: str | None) -> tuple[list[Any], str | None]:
        page = credit_queries.event_usage(ledger.connection, ORG, month, cursor, 5)
        return page.events, page.next_cursor

    assert [event.credits for event in all_pages(read)] == list(range(24, 0, -1))


def test_charges_of_a_run_are_read_in_bounded_pages(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_queries, "VERSIONS_PER_PAGE", 10)
    account = Account()
    for number in range(12):
        account.charge(number + 1, "run-88")
        for _ in range(9 if number < 3 else 0):
            account.charge(1, "another run")
        account.charge(0, "run-88")
    ledger.append(account)
    ledger.project()
    sizes = []

    def read(cursor: str | None) -> tuple[list[Any], str | None]:
        page = credit_queries.transaction_charges(ledger.connection, ORG, "run-88", cursor, 3)
        sizes.append(len(page.charges))
        return page.charges, page.next_cursor

    charges = all_pages(read)

    assert [charge.photos for charge in charges] == list(range(1, 13))
    assert max(sizes) == 3
    assert charges[0].occurred_at == START
    assert charges[0].actor == "u-17"


def test_additions_have_the_details_of_their_type(ledger: Ledger) -> None:
    account = Account()
    account.purchase(1_000)
    charge = account.charge(10)
    account.refund(charge)
    ledger.append(account)
    ledger.project()

    page = credit_queries.transactions(ledger.connection, ORG, TransactionKind.ADDITION, None, 10)
    refund, purchase = (addition.details for addition in page.transactions)
    assert refund == RefundDetails(charge.originator_version, "run-88", "blurred")
    assert isinstance(purchase, PurchaseDetails)
    assert (purchase.gateway, purchase.payment_id, purchase.order_id) == ("razorpay", "pay-1", "order-1")
    assert (purchase.amount_minor, purchase.tax_minor, purchase.currency) == (150_000, 27_000, "INR")


def test_a_summary_compares_months_at_the_same_day(ledger: Ledger) -> None:
    account = Account(time_zone="Asia/Kolkata")
    for month, day, photos in [(6, 10, 1), (6, 30, 2), (5, 10, 4), (5, 31, 8), (7, 31, 16), (8, 1, 32)]:
        account.charge(photos, f"run-{month}", at=datetime(2026, month, day, tzinfo=UTC))
    account.charge(64, "run-7", at=datetime(2026, 8, 1, tzinfo=UTC))  # used by July's run, but not in July
    ledger.append(account)
    ledger.project()

    def compared(now: datetime) -> list[tuple[int, int, bool]]:
        months = credit_queries.usage_summary(ledger.connection, ORG, 3, now).months
        return [(card.credits, card.to_same_point, card.current) for card in months]

    assert compared(datetime(2026, 7, 10, tzinfo=UTC)) == [(80, 0, True), (3, 1, False), (12, 4, False)]
    assert compared(datetime(2026, 7, 31, tzinfo=UTC)) == [(80, 16, True), (3, 3, False), (12, 12, False)]
    # Half past six in the evening is midnight in Kolkata.
    assert compared(datetime(2026, 7, 31, 18, 30, tzinfo=UTC))[0] == (32, 32, True)


def test_results_have_their_position(ledger: Ledger, account: Account) -> None:
    end = len(ledger.log)
    account.charge(1)
    ledger.append(account)

    positions = credit_queries.positions(ledger.connection)
    assert (positions.position, positions.log_end) == (end, end + 1)
    assert {
        view: read(ledger.connection, ORG).position for view, read in VIEWS.items() if view != "charges"
    } == (dict.fromkeys(VIEWS.keys() - {"charges"}, end))


@pytest.mark.parametrize("view", VIEWS)
def test_unknown_organisations(ledger: Ledger, view: str) -> None:
    with pytest.raises(OrganisationNotFound):
        VIEWS[view](ledger.connection, "nobody")


def test_unknown_runs(ledger: Ledger, account: Account) -> None:
    with pytest.raises(RunNotFound):
        credit_queries.transaction_charges(ledger.connection, ORG, "nothing", None, 10)


def test_an_organisation_without_usage_has_empty_pages(ledger: Ledger) -> None:
    ledger.append(Account())
    ledger.project()

    assert credit_queries.transactions(ledger.connection, ORG, None, None, 10).transactions == []
    assert credit_queries.event_usage(ledger.connection, ORG, JULY, None, 10).events == []
    days = credit_queries.daily_usage(ledger.connection, ORG, JULY, JULY).days
    assert [(day.day, day.credits) for day in days] == [(JULY, 0)]


@pytest.mark.parametrize(
    ("field", "read"),
    [
        ("cursor", lambda connection: credit_queries.transactions(connection, ORG, None, "x", 10)),
        ("cursor", lambda connection: credit_queries.event_usage(connection, ORG, None, "x", 10)),
        ("limit", lambda connection: credit_queries.transactions(connection, ORG, None, None, 0)),
        ("limit", lambda connection: credit_queries.event_usage(connection, ORG, None, None, 501)),
        ("limit", lambda connection: credit_queries.transaction_charges(connection, ORG, "run-1", None, 501)),
        ("month", lambda connection: credit_queries.event_usage(connection, ORG, date(2026, 7, 2), None, 10)),
        ("months", lambda connection: credit_queries.usage_summary(connection, ORG, 37, START)),
        ("to_day", lambda connection: credit_queries.daily_usage(connection, ORG, JULY, date(2026, 6, 30))),
        ("to_day", lambda connection: credit_queries.daily_usage(connection, ORG, JULY, date(2028, 6, 30))),
    ],
)
def test_an_invalid_parameter_is_named(
    ledger: Ledger, account: Account, field: str, read: Callable[[Connection], object]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(ledger.connection)
    assert refused.value.field == field


def test_the_cost_of_a_query_does_not_grow_with_the_history(ledger: Ledger) -> None:
    account = Account(trial_credits=200)
    for number in range(200):
        account.charge(1, "run-88", event_id=number, at=START + timedelta(days=number % 90))
    for number in range(30_000):
        account.charge(1, f"run-{number}", event_id=number, at=START + timedelta(days=number % 90))
    ledger.append(account)
    ledger.project(batch_size=5_000)
    ledger.connection.execute("ANALYZE")
    # PostgreSQL scans a small table with one organisation completely; with many it does not.
    ledger.connection.execute("SET enable_seqscan = off")

    for name, read in VIEWS.items():
        before = tuples_read(ledger)
        read(ledger.connection, ORG)
        assert tuples_read(ledger) - before < 500, name


def tuples_read(ledger: Ledger) -> int:
    """Return how many tuples the connection has read since its statistics were last reported."""
    with ledger.connection.transaction():
        ledger.connection.execute("SELECT pg_stat_clear_snapshot()")
        query = "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables"
        return int(ledger.one(query))


def test_usage_without_a_photo_event_is_listed_under_no_event(ledger: Ledger) -> None:
    """Event id 0 means no event: its credits are on the card and in the list, but not in the attribution."""
    account = Account(trial_credits=200)
    account.charge(5, "run-1", event_id=0, event_name="")
    account.charge(7, "run-2", event_id=0, event_name="")
    account.charge(0, "run-2", event_id=7, event_name="never counted")
    account.charge(1, "run-2", event_id=1042, event_name="City Marathon")
    refunded = account.charge(3, "run-3", event_id=0, event_name="")
    account.refund(refunded)
    ledger.append(account)
    ledger.project()
    ledger.assert_projected()

    assert [
        each.event_id for each in credit_queries.event_usage(ledger.connection, ORG, JULY, None, 9).events
    ] == [1042]
    assert [
        each.event_id for each in credit_queries.event_usage(ledger.connection, ORG, None, None, 9).events
    ] == [1042]
    (card,) = credit_queries.usage_summary(ledger.connection, ORG, 1, START).months
    assert (card.credits, card.runs, card.events) == (16, 3, 1)
    listed = credit_queries.transactions(ledger.connection, ORG, None, None, 9).transactions
    assert {
        each.reference: (each.event_ids, each.event_name) for each in listed if each.type != "free_credits"
    } == {
        "run-1": ([], None),
        "run-2": ([1042], "City Marathon"),
        "run-3": ([], None),
        str(account.organisation.version): ([], None),
    }
    charges = credit_queries.transaction_charges(ledger.connection, ORG, "run-2", None, 9).charges
    assert [(each.event_id, each.event_name) for each in charges] == [(None, None), (1042, "City Marathon")]
