"""The ledger as an application of the eventsourcing library: its features work as its documentation says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest
from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import IntegrityError, NotSupportedError, OperationalError, Recording

from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger
from domain.credits.organisation import Organisation
from domain.credits.organisation_state import SNAPSHOT_EVERY
from domain.event_catalogue import EventCodec
from domain.payments.payment import Payment
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.errors import DuplicateKey, InvariantViolation, StoreUnavailable, VersionConflict
from domain.shared.money import Currency
from domain.shared.stream_keys import payment_stream, stream_id
from infra.event_store.mapper import dedupe_key_of
from infra.event_store.recorder import event_store_of
from infra.event_store.usage_store import PostgresUsageStore
from infra.service.composition import credits_of, open_ledger
from tests.histories import Account
from tests.sales import invoice, make_sale, series
from tests.unit.payments.payment_builders import CREDITS, completed, requested

ORG = "org-4711"
STREAM = stream_id(ORG)
PAYMENT = payment_stream("payment-1")
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
REQUEST = CommandContext(NOON, "u-1", "request-1")


@pytest.fixture
def ledger(service_database: str) -> Iterator[Ledger]:
    with open_ledger(service_database) as ledger:
        yield ledger


@pytest.fixture
def connection(migrated_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        yield connection


def opened(trial_credits: int = 200) -> Organisation:
    return Organisation.open(
        ORG,
        time_zone="UTC",
        currency=Currency.INR,
        price_millionths=1_500_000,
        trial_credits=trial_credits,
        context=REQUEST,
    )


def state_of(aggregate: Aggregate) -> dict[str, Any]:
    """Return every field, apart from a decision that is under way."""
    names = {name for each in type(aggregate).__mro__ for name in getattr(each, "__slots__", ())}
    return {
        name: getattr(aggregate, name)
        for name in names - {"_pending", "_available_before"}
        if hasattr(aggregate, name)
    }


def organisation(ledger: Ledger, version: int | None = None) -> Organisation:
    found: Organisation = ledger.repository.get(STREAM, version=version)
    return found


def positions(recordings: list[Recording[Any]]) -> list[int]:
    return [recording.notification.id for recording in recordings]


class TestRepository:
    def test_an_organisation_is_as_its_commands_see_it(self, ledger: Ledger) -> None:
        credits_of(ledger).commands.open_organisation(ORG, context=REQUEST)
        credits_of(ledger).commands.grant(ORG, 50, kind=GrantKind.ADMIN, reason="goodwill", context=REQUEST)
        found = ledger.repository.get(STREAM)
        assert type(found) is Organisation
        assert state_of(found) == state_of(ledger.organisation(ORG))
        assert found.balance == 250

    def test_a_payment_is_as_it_was_decided(self, ledger: Ledger) -> None:
        payment = completed()
        ledger.save(payment)
        found = ledger.repository.get(PAYMENT)
        assert type(found) is Payment
        assert state_of(found) == state_of(payment)

    def test_an_earlier_version(self, ledger: Ledger) -> None:
        ledger.save(opened(), completed())
        assert [organisation(ledger, version).balance for version in (1, 2)] == [0, 200]
        payment: Payment = ledger.repository.get(PAYMENT, version=1)
        assert (payment.version, payment.order_id) == (1, None)

    def test_whether_it_is_there(self, ledger: Ledger) -> None:
        ledger.save(opened())
        assert STREAM in ledger.repository
        assert PAYMENT not in ledger.repository
        with pytest.raises(AggregateNotFoundError):
            ledger.repository.get(PAYMENT)

    def test_what_it_returns_can_decide_and_be_saved(self, ledger: Ledger) -> None:
        ledger.save(opened())
        found = organisation(ledger)
        found.grant(50, GrantKind.ADMIN, "goodwill", REQUEST)
        ledger.save(found)
        assert ledger.organisation(ORG).balance == 250

    def test_a_series_of_invoices_is_refused(self, ledger: Ledger) -> None:
        """Refused: only the last event of a series is read, and its time zone is a setting of the seller."""
        invoices = series()
        invoices.issue(invoice(make_sale()), REQUEST)
        ledger.save(invoices)
        with pytest.raises(InvariantViolation, match="begins no history"):
            ledger.repository.get(invoices.id)


class TestSave:
    def test_what_aggregates_decided_is_in_the_log_together(self, ledger: Ledger) -> None:
        first, second = opened(), completed()
        recordings = ledger.save(first, second)
        assert positions(recordings) == [1, 2, 3, 4, 5]
        assert [recording.domain_event for recording in recordings] == [
            *ledger.events.get(STREAM),
            *ledger.events.get(PAYMENT),
        ]
        assert first.collect_events() == second.collect_events() == []

    def test_nothing_decided_is_nothing_saved(self, ledger: Ledger) -> None:
        organisation = opened()
        ledger.save(organisation)
        assert ledger.save(organisation) == ledger.save() == ledger.save(None) == []
        assert ledger.recorder.max_notification_id() == 2

    def test_a_lost_race_is_an_integrity_error_and_saves_nothing(self, ledger: Ledger) -> None:
        ledger.save(opened())
        one, other = organisation(ledger), organisation(ledger)
        for each in (one, other):
            each.grant(50, GrantKind.ADMIN, "goodwill", REQUEST)
        ledger.save(one)
        with pytest.raises(IntegrityError) as lost:
            ledger.save(requested(), other)
        assert isinstance(lost.value, VersionConflict)
        assert PAYMENT not in ledger.repository
        assert organisation(ledger).balance == 250

    def test_a_repeated_key_is_an_integrity_error(self, ledger: Ledger) -> None:
        ledger.save(completed())
        again = Payment.request(
            "payment-2", ORG, CREDITS, gateway="razorpay", quote_id="quote-1", context=REQUEST
        )
        with pytest.raises(IntegrityError) as repeated:
            ledger.save(again)
        assert isinstance(repeated.value, DuplicateKey)

    def test_books_that_do_not_add_up_are_not_saved(self, ledger: Ledger) -> None:
        broken = opened()
        broken.balance += 1
        with pytest.raises(InvariantViolation):
            ledger.save(requested(), broken)
        assert ledger.recorder.max_notification_id() is None

    def test_events_of_other_applications_are_refused(self, ledger: Ledger) -> None:
        class Foreign:
            originator_id, originator_version = STREAM, 1

        with pytest.raises(TypeError, match="Foreign is not an event of the ledger"):
            ledger.save(Foreign())

    def test_a_lost_database_is_an_operational_error(self) -> None:
        assert issubclass(StoreUnavailable, OperationalError)

    def test_a_snapshot_is_kept_every_so_many_events(
        self, ledger: Ledger, connection: psycopg.Connection[Any]
    ) -> None:
        organisation = opened()
        while organisation.version <= SNAPSHOT_EVERY:
            organisation.grant(1, GrantKind.ADMIN, "", REQUEST)
        ledger.save(organisation)
        assert snapshots(connection) == [SNAPSHOT_EVERY]


def snapshots(connection: psycopg.Connection[Any]) -> list[int]:
    rows = connection.execute("SELECT originator_version FROM ledger.snapshots ORDER BY 1").fetchall()
    return [version for (version,) in rows]


class TestTakeSnapshot:
    def test_of_the_latest_version_and_of_an_earlier_one(
        self, ledger: Ledger, connection: psycopg.Connection[Any]
    ) -> None:
        ledger.save(opened())
        whole = [state_of(organisation(ledger, version)) for version in (1, 2)]
        ledger.take_snapshot(STREAM)
        assert snapshots(connection) == [2]
        ledger.take_snapshot(STREAM, version=1)
        ledger.take_snapshot(STREAM, version=1)
        assert snapshots(connection) == [1, 2]
        assert [state_of(organisation(ledger, version)) for version in (1, 2)] == whole

    def test_reads_begin_with_it(self, ledger: Ledger, connection: psycopg.Connection[Any]) -> None:
        ledger.save(opened())
        ledger.take_snapshot(STREAM)
        richer = organisation(ledger)
        richer.grant(1_000_000, GrantKind.ADMIN, "", REQUEST)
        state = EventCodec().encode(richer.snapshot().event)
        connection.execute("UPDATE ledger.snapshots SET state = %s", [state])
        assert organisation(ledger).balance == 1_000_200
        assert organisation(ledger, version=1).balance == 0

    def test_of_a_payment_is_refused(self, ledger: Ledger, connection: psycopg.Connection[Any]) -> None:
        """Refused: a payment has a few dozen events at most, so a snapshot would only add a read."""
        ledger.save(completed())
        with pytest.raises(NotSupportedError, match="no snapshots are kept of Payment"):
            ledger.take_snapshot(PAYMENT)
        assert snapshots(connection) == []

    def test_of_what_is_not_there(self, ledger: Ledger) -> None:
        with pytest.raises(AggregateNotFoundError):
            ledger.take_snapshot(STREAM)


class TestNotificationLog:
    def test_it_is_every_event_in_the_order_of_the_log(self, ledger: Ledger) -> None:
        recordings = ledger.save(opened(), completed())
        notifications = ledger.notification_log.select(start=1, limit=10)
        assert notifications == [recording.notification for recording in recordings]
        events = [ledger.mapper.to_domain_event(notification) for notification in notifications]
        assert events == [recording.domain_event for recording in recordings]

    def test_parts_of_it(self, ledger: Ledger) -> None:
        ledger.save(opened(), completed())
        log = ledger.notification_log
        assert [each.id for each in log.select(start=2, limit=2)] == [2, 3]
        assert [each.id for each in log.select(start=2, limit=9, stop=4, inclusive_of_start=False)] == [3, 4]
        assert [each.id for each in log.select(1, 10, topics=["payment_completed.v1"])] == [5]

    def test_its_sections(self, ledger: Ledger) -> None:
        ledger.save(opened(), completed())
        section = ledger.notification_log["1,3"]
        assert (section.id, section.next_id) == ("1,3", "4,6")
        assert section.next_id is not None
        rest = ledger.notification_log[section.next_id]
        assert (rest.id, rest.next_id, len(rest.items)) == ("4,5", None, 2)


class TestSubscribe:
    @pytest.mark.parametrize("gt", [None, 0, 3])
    def test_what_is_there_comes_first(self, ledger: Ledger, gt: int | None) -> None:
        ledger.save(opened(), completed())
        with ledger.recorder.subscribe(gt=gt) as subscription:
            first = next(subscription)
        assert first.id == (gt or 0) + 1

    def test_of_some_topics(self, ledger: Ledger) -> None:
        ledger.save(opened(), completed())
        topics = ["credits_granted.v1", "payment_completed.v1"]
        with ledger.recorder.subscribe(topics=topics) as subscription:
            assert [next(subscription).id, next(subscription).id] == [2, 5]

    def test_what_is_appended_on_any_path_comes_after(self, ledger: Ledger, service_database: str) -> None:
        account = Account(ORG, trial_credits=200)
        with ThreadPoolExecutor(1) as waiting, ledger.recorder.subscribe(gt=0) as subscription:

            def after(append: Any) -> list[str]:
                arriving = waiting.submit(lambda: [next(subscription).topic, next(subscription).topic])
                append()
                return arriving.result(timeout=20)

            def save() -> None:
                ledger.save(account.organisation)

            def commands() -> None:
                credits_of(ledger).commands.grant(
                    ORG, 50, kind=GrantKind.ADMIN, reason="goodwill", context=REQUEST
                )
                credits_of(ledger).commands.change_price(ORG, 2_000_000, context=REQUEST)

            def usage() -> None:
                found = ledger.organisation(ORG)
                account.organisation = found
                charges = [account.charge(1), account.charge(2)]
                keys = [key for charge in charges if (key := dedupe_key_of(charge))]
                with closing(PostgresUsageStore(service_database)) as store:
                    transaction = store.begin([])
                    transaction.start_commit(charges, store.rows(charges, keys), [])
                    transaction.finish_commit()

            assert after(save) == ["organisation_opened.v1", "credits_granted.v1"]
            assert after(commands) == ["credits_granted.v1", "price_changed.v1"]
            assert after(usage) == ["usage_charged.v1", "usage_charged.v1"]

    def test_it_takes_no_connection_from_commands(self, service_database: str) -> None:
        with open_ledger(service_database, pool_size=1) as ledger:
            with ledger.recorder.subscribe(gt=0) as one, ledger.recorder.subscribe(gt=0) as other:
                ledger.save(opened())
                assert next(one) == next(other)
            assert event_store_of(ledger).recorder.datastore.pool.get_stats()["pool_size"] == 1

    def test_a_lost_connection_is_raised_where_it_is_read(
        self, ledger: Ledger, connection: psycopg.Connection[Any]
    ) -> None:
        with ledger.recorder.subscribe(gt=0) as subscription:
            ledger.save(opened())
            assert [next(subscription).id, next(subscription).id] == [1, 2]
            wait_for_listener(connection)
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            with pytest.raises(StoreUnavailable):
                next(subscription)


def wait_for_listener(connection: psycopg.Connection[Any]) -> None:
    deadline = monotonic() + 20
    listening = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        " AND state = 'idle'"
    )
    while connection.execute(listening).fetchone() is None:
        assert monotonic() < deadline
        sleep(0.01)
