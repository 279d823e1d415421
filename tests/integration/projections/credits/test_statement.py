"""The projected tables for everyday histories, and at the boundaries of months."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from domain.credits.events import GrantKind, PurchaseRefunded
from domain.pricing.rate_card import UsageType
from domain.shared.money import Cost
from projections.credits import queries as credit_queries
from projections.credits.read_models import TransactionKind, TransactionType
from tests.histories import Account
from tests.integration.projections.conftest import Ledger

Story = Callable[[Account], None]

TENTH = 100_000
JULY = date(2026, 7, 1)


def cards(ledger: Ledger, now: datetime, months: int = 2) -> list[tuple[date, int, int]]:
    """Return (month, credits, runs) of an organisation's cards, oldest first."""
    summary = credit_queries.usage_summary(ledger.connection, "org-4711", months, now)
    return [(card.month, card.credits, card.runs) for card in reversed(summary.months)]


def rows(ledger: Ledger, kind: TransactionKind | None = None) -> list[tuple[TransactionType, int]]:
    page = credit_queries.transactions(ledger.connection, "org-4711", kind, None, 100)
    return [(transaction.type, transaction.credits) for transaction in page.transactions]


def test_a_run_of_many_messages_is_one_transaction(ledger: Ledger, story: Story) -> None:
    account = Account(trial_credits=200)
    for minute in range(10):
        account.charge(30, at=datetime(2026, 7, 1, 9, minute, tzinfo=UTC))
    story(account)

    (run,) = credit_queries.transactions(
        ledger.connection, "org-4711", TransactionKind.USAGE, None, 10
    ).transactions
    assert (run.reference, run.credits, run.photos) == ("run-88", -300, 300)
    assert run.occurred_at == datetime(2026, 7, 1, 9, 0, tzinfo=UTC)
    assert credit_queries.balance(ledger.connection, "org-4711").balance == -100


def test_a_run_counts_in_the_month_of_its_first_charge_in_ledger_order(ledger: Ledger, story: Story) -> None:
    account = Account()
    account.charge(5, at=datetime(2026, 8, 1, 0, 10, tzinfo=UTC))
    story(account)
    account.charge(7, at=datetime(2026, 7, 31, 23, 50, tzinfo=UTC))  # sent earlier, arrived later
    story(account)

    assert cards(ledger, datetime(2026, 8, 2, tzinfo=UTC)) == [(JULY, 0, 0), (date(2026, 8, 1), 12, 1)]
    (run,) = credit_queries.transactions(ledger.connection, "org-4711", None, None, 10).transactions
    assert run.occurred_at == datetime(2026, 7, 31, 23, 50, tzinfo=UTC)
    days = credit_queries.daily_usage(ledger.connection, "org-4711", date(2026, 7, 31), date(2026, 8, 1)).days
    assert [(day.day.day, day.credits) for day in days] == [(31, 7), (1, 5)]


def test_the_last_second_of_the_year_in_kolkata(ledger: Ledger, story: Story) -> None:
    account = Account(time_zone="Asia/Kolkata")
    last_second = datetime(2026, 12, 31, 18, 29, 59, tzinfo=UTC)
    account.charge(3, "old year", at=last_second)
    account.charge(4, "new year", at=last_second + timedelta(seconds=1))
    story(account)

    expected = [(date(2026, 12, 1), 3, 1), (date(2027, 1, 1), 4, 1)]
    assert cards(ledger, last_second + timedelta(seconds=1)) == expected
    assert cards(ledger, last_second) == [(date(2026, 11, 1), 0, 0), (date(2026, 12, 1), 3, 1)]


def test_days_of_new_york_when_clocks_change(ledger: Ledger, story: Story) -> None:
    account = Account(time_zone="America/New_York")
    moments = {
        "winter midnight": datetime(2026, 3, 8, 5, 0, tzinfo=UTC),
        "summer time begins": datetime(2026, 3, 8, 7, 0, tzinfo=UTC),
        "summer midnight": datetime(2026, 3, 9, 4, 0, tzinfo=UTC),
        "the hour that comes twice": datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
        "and again": datetime(2026, 11, 1, 6, 30, tzinfo=UTC),
        "before midnight": datetime(2026, 11, 1, 3, 59, 59, tzinfo=UTC),
    }
    for run_id, at in moments.items():
        account.charge(1, run_id, at=at)
    story(account)

    listed = credit_queries.transactions(ledger.connection, "org-4711", None, None, 10).transactions
    months = {run.reference: run.month for run in listed}
    assert months["before midnight"] == date(2026, 10, 1)
    assert months["and again"] == months["the hour that comes twice"] == date(2026, 11, 1)
    days = credit_queries.daily_usage(ledger.connection, "org-4711", date(2026, 3, 7), date(2026, 3, 9)).days
    assert [day.credits for day in days] == [0, 2, 1]


def test_a_zone_change_does_not_affect_past_months_and_open_runs(ledger: Ledger, story: Story) -> None:
    account = Account(time_zone="Asia/Kolkata")
    at = datetime(2026, 7, 31, 20, tzinfo=UTC)  # 1 August in Kolkata, 31 July in New York
    account.charge(10, "first", at=at)
    account.organisation.change_time_zone("America/New_York", account.request())
    account.charge(10, "first", at=at)
    account.charge(10, "second", at=at)
    story(account)

    assert cards(ledger, datetime(2026, 8, 2, 12, tzinfo=UTC)) == [(JULY, 10, 1), (date(2026, 8, 1), 20, 1)]


def test_zero_credit_messages_are_hidden_until_their_run_is_charged(ledger: Ledger, story: Story) -> None:
    account = Account()
    account.charge(50, "search off", rate_millionths=0)
    account.charge(0, "no photos")
    account.charge(5, "rotated", rate_millionths=TENTH, usage_type=UsageType.WATERMARK_REPROCESS)
    account.charge(5, "rotated", rate_millionths=TENTH, usage_type=UsageType.WATERMARK_REPROCESS)
    story(account)

    (run,) = credit_queries.transactions(ledger.connection, "org-4711", None, None, 10).transactions
    assert (run.reference, run.credits, run.photos) == ("rotated", -1, 10)
    assert credit_queries.balance(ledger.connection, "org-4711").version == 5


def test_a_refund_is_an_addition_and_does_not_change_cards(ledger: Ledger, story: Story) -> None:
    account = Account(trial_credits=200)
    charge = account.charge(80)
    story(account)
    account.refund(charge, 30)
    story(account)

    assert rows(ledger) == [
        (TransactionType.REFUND, 30),
        (TransactionType.FREE_CREDITS, 200),
        (TransactionType.USAGE, -80),
    ]
    (refund, _) = credit_queries.transactions(
        ledger.connection, "org-4711", TransactionKind.ADDITION, None, 10
    ).transactions
    assert (refund.event_ids, refund.event_name) == ([1042], "City Marathon 2026")
    assert cards(ledger, account.now, months=1) == [(JULY, 80, 1)]
    assert credit_queries.balance(ledger.connection, "org-4711").balance == 150


def test_additions_are_named_by_their_type(ledger: Ledger, story: Story) -> None:
    account = Account(trial_credits=200)
    account.grant(10, GrantKind.PROMOTIONAL)
    account.grant(20, GrantKind.ADMIN)
    account.purchase(1_000)
    story(account)

    assert rows(ledger, TransactionKind.ADDITION) == [
        (TransactionType.PURCHASE, 1_000),
        (TransactionType.ADMIN_GRANT, 20),
        (TransactionType.FREE_CREDITS, 10),
        (TransactionType.FREE_CREDITS, 200),
    ]


def test_a_run_that_names_two_events_counts_once_on_the_card_and_once_for_each_event(
    ledger: Ledger, story: Story
) -> None:
    account = Account()
    account.charge(1, event_id=1, event_name="One")
    story(account)
    account.charge(2, event_id=2, event_name="Two", usage_type=UsageType.AI_IMAGE_ROTATION)
    account.charge(4, event_id=1, event_name="One, renamed")
    story(account)
    account.charge(8, "another run", event_id=2, event_name="Two")
    story(account)

    (card,) = credit_queries.usage_summary(ledger.connection, "org-4711", 1, account.now).months
    assert (card.runs, card.events) == (2, 2)
    for month in (JULY, None):
        page = credit_queries.event_usage(ledger.connection, "org-4711", month, None, 10)
        named = [
            (photo_event.event_id, photo_event.event_name, photo_event.credits, photo_event.runs)
            for photo_event in page.events
        ]
        assert named == [(2, "Two", 10, 2), (1, "One, renamed", 5, 1)]


def test_months_before_the_organisation_existed_are_zero(ledger: Ledger, story: Story) -> None:
    account = Account()
    story(account)

    assert [
        card.credits
        for card in credit_queries.usage_summary(ledger.connection, "org-4711", 36, account.now).months
    ] == [0] * 36


def test_a_refunded_purchase_is_an_addition_below_zero(ledger: Ledger, story: Story) -> None:
    account = Account(trial_credits=200)
    bought = account.purchase(1_000)
    taken = account.organisation.refund_purchase(
        bought.originator_version,
        400,
        payment_id="payment-1",
        refund_id="refund-1",
        cost=Cost(60_000, 10_800),
        context=account.request(),
    )
    story(account)
    assert ledger.one("SELECT purchased FROM projections.balances") == 600
    assert isinstance(taken.event, PurchaseRefunded)
    account.organisation.reverse_purchase_refund(taken.event, account.request())
    story(account)
    rows = ledger.connection.execute(
        "SELECT credits FROM projections.transactions WHERE type = 'purchase_refund' ORDER BY first_version"
    ).fetchall()
    assert rows == [(-400,), (400,)]
    assert ledger.one("SELECT balance FROM projections.balances") == 1_200
