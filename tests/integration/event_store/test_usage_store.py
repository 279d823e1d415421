"""The store of the usage path, one method at a time. Other tests run `UsageIngest` on it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from threading import Event as Flag
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from consumers.usage.ports import ParkedMessage, PositionMove
from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger
from domain.credits.organisation import Organisation
from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import (
    CheckpointConflict,
    DuplicateKey,
    StoreUnavailable,
    UnknownEventType,
    VersionConflict,
)
from domain.shared.stream_keys import stream_id
from infra.event_store.datastore import TAKE_WRITE_LOCK
from infra.event_store.mapper import dedupe_key_of
from infra.event_store.usage_store import PostgresUsageStore, PostgresUsageTransaction
from infra.service.composition import credits_of
from tests.histories import START, Account, append
from tests.unit.credits.builders import request

WITHIN_S = 30


def move(partition: int, expected: int, to: int, *, topic: str = "usage") -> PositionMove:
    return PositionMove(topic, partition, "id-1", expected, to, f"digest-{to}".encode())


def begin_logs(connection: psycopg.Connection[Any], *partitions: int, topic: str = "usage") -> None:
    for partition in partitions:
        connection.execute(
            "INSERT INTO ledger.consumer_positions (topic, partition, topic_id, next_offset)"
            " VALUES (%s, %s, 'id-1', 0)",
            (topic, partition),
        )


def offsets(connection: psycopg.Connection[Any]) -> list[tuple[int, int]]:
    return connection.execute(
        "SELECT partition, next_offset FROM ledger.consumer_positions ORDER BY 1"
    ).fetchall()


def write(
    store: PostgresUsageStore,
    charges: list[EventEnvelope],
    moves: tuple[PositionMove, ...] = (),
    snapshots: Sequence[EventEnvelope] = (),
) -> int:
    keys = [dedupe_key_of(charge) for charge in charges]
    transaction = store.begin(moves)
    transaction.start_commit(charges, store.rows(charges, [key for key in keys if key]), snapshots)
    return transaction.finish_commit()


def commit(transaction: PostgresUsageTransaction) -> int:
    transaction.start_commit([], b"", [])
    return transaction.finish_commit()


def parked(number: int, organisation_id: str = "new") -> ParkedMessage:
    key, value = organisation_id.encode(), b"value \x00\xff"
    return ParkedMessage(uuid4().bytes, organisation_id, b"{}", key, value, b"[]", "usage", 0, number, START)


def state(organisation: Organisation) -> dict[str, Any]:
    return {
        name: deepcopy(getattr(organisation, name)) for name in ("version", "balance", "lots", "overdraft")
    }


# ----------------------------------------------------------------------------------------- loading


def test_organisations_are_loaded_as_their_histories_make_them(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    accounts = [Account(f"org-{number}", trial_credits=number) for number in range(1, 4)]
    for account in accounts:
        account.charge(account.organisation.balance)
        account.grant(11)
        append(connection, account.collect())
    unknown = stream_id("unknown")
    loaded = store.load([unknown, *(account.organisation.id for account in accounts)])
    assert loaded.keys() == {account.organisation.id for account in accounts}
    for account in accounts:
        assert state(loaded[account.organisation.id]) == state(account.organisation)
    assert store.load([unknown]) == store.load([]) == {}


def test_a_load_starts_at_the_snapshot(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    account = Account(trial_credits=50)
    account.charge(7)
    *opened, charge = account.collect()
    append(connection, opened)
    write(store, [charge], snapshots=[account.organisation.snapshot()] * 2)
    account.charge(1)
    append(connection, account.collect())
    assert state(store.load([account.organisation.id])[account.organisation.id]) == state(
        account.organisation
    )
    with connection.transaction():
        connection.execute("ALTER TABLE ledger.events DISABLE TRIGGER ALL")
        connection.execute("DELETE FROM ledger.events WHERE originator_version = 1")
    assert state(store.load([account.organisation.id])[account.organisation.id]) == state(
        account.organisation
    )


def test_a_snapshot_of_an_uncommitted_version_is_ignored(
    store: PostgresUsageStore, ledger: Ledger, connection: psycopg.Connection[Any]
) -> None:
    account = Account(trial_credits=50)
    append(connection, account.collect())
    before = state(account.organisation)
    account.charge(7)
    row = store.mapper.to_stored_event(account.organisation.snapshot())  # the charge was never committed
    connection.execute(
        "INSERT INTO ledger.snapshots (originator_id, originator_version, topic, state)"
        " VALUES (%s, %s, %s, %s)",
        (row.originator_id, row.originator_version, row.topic, row.state),
    )
    stream = account.organisation.id
    assert state(store.load([stream])[stream]) == before
    assert state(ledger.organisation("org-4711")) == before


def test_an_event_of_a_newer_version_is_refused(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    account = Account()
    append(connection, account.collect())
    connection.execute(
        "INSERT INTO ledger.events (originator_id, originator_version, topic, state)"
        " VALUES (%s, 2, 'from_the_future.v9', '[]')",
        (account.organisation.id,),
    )
    with pytest.raises(UnknownEventType, match=r"from_the_future\.v9"):
        store.load([account.organisation.id])
    assert store.log_end() > 0


# ------------------------------------------------------------------------------------- transactions


def test_moves_and_charges_commit_together(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    begin_logs(connection, 0, 1)
    account = Account()
    before = append(connection, account.collect())
    account.charge(1)
    account.charge(2)
    end = write(store, account.collect(), (move(1, 0, 5), move(0, 0, 3)))
    assert end == store.log_end() == before + 2
    assert offsets(connection) == [(0, 3), (1, 5)]
    assert connection.execute(
        "SELECT last_record_digest FROM ledger.consumer_positions ORDER BY 1"
    ).fetchall() == [
        (b"digest-3",),
        (b"digest-5",),
    ]


def test_a_transaction_without_charges_moves_and_ends_where_the_log_does(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    begin_logs(connection, 0)
    end = append(connection, Account().collect())
    assert commit(store.begin([move(0, 0, 3)])) == end
    assert offsets(connection) == [(0, 3)]


def test_a_rollback_leaves_nothing(store: PostgresUsageStore, connection: psycopg.Connection[Any]) -> None:
    begin_logs(connection, 0)
    transaction = store.begin([move(0, 0, 3)])
    transaction.park([parked(0)], [stream_id("new")])
    transaction.rollback()
    transaction.rollback()
    assert offsets(connection) == [(0, 0)]
    assert store.parked_before(START.replace(year=2030), 10) == []


def test_a_repeated_key_leaves_nothing_and_the_connection_usable(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    begin_logs(connection, 0)
    account = Account()
    account.charge(1)
    append(connection, account.collect()[:1])
    charge = account.history[1]
    write(store, [charge])
    again = EventEnvelope(charge.originator_id, 3, charge.event)
    with pytest.raises(DuplicateKey) as repeated:
        write(store, [again], (move(0, 0, 9),))
    assert repeated.value.details == {"constraint": "events_dedupe_key_idx"}
    assert offsets(connection) == [(0, 0)]
    pid = store._connections._by_purpose["writing"].info.backend_pid
    commit(store.begin([move(0, 0, 9)]))
    assert store._connections._by_purpose["writing"].info.backend_pid == pid


def test_a_taken_version_is_stale(store: PostgresUsageStore, connection: psycopg.Connection[Any]) -> None:
    account = Account()
    account.charge(1)
    append(connection, account.collect()[:1])
    write(store, [account.history[1]])
    other = Account()
    other.charge(1)
    with pytest.raises(VersionConflict):
        write(store, other.collect()[1:])


def test_gaps_of_rolled_back_ids_do_not_confuse_the_end(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    account = Account()
    append(connection, account.collect())
    end = store.log_end()
    account.charge(1)
    (charge,) = account.collect()
    transaction = store.begin(())
    transaction.start_commit([charge, charge], store.rows([charge, charge], [b"k" * 16, b"l" * 16]), [])
    with pytest.raises(VersionConflict):
        transaction.finish_commit()
    assert store.log_end() == end
    last = write(store, [charge])
    assert last == store.log_end() > end + 1


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_any_of_several_positions_that_moved_stops_all(
    store: PostgresUsageStore, connection: psycopg.Connection[Any], lost: int
) -> None:
    begin_logs(connection, 0, 1, 2)
    commit(store.begin([move(lost, 0, 1)]))
    with pytest.raises(CheckpointConflict, match=f"usage/{lost} is not 0"):
        store.begin([move(partition, 0, 9) for partition in (2, 0, 1)])
    assert offsets(connection) == [(partition, int(partition == lost)) for partition in range(3)]
    commit(store.begin([move(lost, 1, 2)]))  # and the lock is released


def test_a_topic_name_is_data(store: PostgresUsageStore, connection: psycopg.Connection[Any]) -> None:
    topic = "it's; DROP TABLE ledger.events --%s {}\\"
    begin_logs(connection, 0, topic=topic)
    commit(store.begin([move(0, 0, 4, topic=topic)]))
    assert offsets(connection) == [(0, 4)]


def test_the_log_end_is_read_after_the_lock_is_taken(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    account = Account()
    append(connection, account.collect())
    stream = account.organisation.id
    organisation = store.load([stream])[stream]
    seen = store.log_end()
    holds, release = Flag(), Flag()

    def hold_the_lock() -> int:
        with connection.transaction():
            connection.execute(TAKE_WRITE_LOCK)
            holds.set()
            assert release.wait(WITHIN_S)
            account.charge(5)
            return append(connection, account.collect())

    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(hold_the_lock)
        assert holds.wait(WITHIN_S)
        beginning = threads.submit(store.begin, ())
        release.set()
        transaction = beginning.result(WITHIN_S)
        assert transaction.log_end == other.result(WITHIN_S) > seen
    assert transaction.streams_appended_after(seen) == {stream}
    assert transaction.streams_appended_after(transaction.log_end) == set()
    transaction.catch_up([organisation])
    assert state(organisation) == state(account.organisation)
    transaction.catch_up([organisation])  # nothing more to load
    assert state(transaction.load([stream])[stream]) == state(organisation)
    transaction.rollback()


def test_catching_up_starts_at_each_organisations_version(
    store: PostgresUsageStore, connection: psycopg.Connection[Any]
) -> None:
    accounts = [Account(f"org-{number}") for number in range(3)]
    held: list[Organisation] = []
    for number, account in enumerate(accounts):
        append(connection, account.collect())
        held.append(store.load([account.organisation.id])[account.organisation.id])
        for _ in range(number):
            account.grant(2)
        append(connection, account.collect())
    transaction = store.begin(())
    transaction.catch_up(held)
    transaction.rollback()
    assert [state(organisation) for organisation in held] == [state(a.organisation) for a in accounts]


# ------------------------------------------------------------------------------- recorded and parked


def test_recorded_finds_charges_by_key(
    store: PostgresUsageStore, ledger: Ledger, connection: psycopg.Connection[Any]
) -> None:
    credits_of(ledger).commands.open_organisation("org-1", context=request())
    credits_of(ledger).commands.record_purchase(
        "org-1", 5, payment_id="p", order_id="o", gateway="g", context=request()
    )
    account = Account("org-2")
    account.charge(1)
    opened, charge = account.collect()
    append(connection, [opened])
    write(store, [charge])
    ((purchase_key,),) = connection.execute(
        "SELECT dedupe_key FROM ledger.events WHERE topic = 'credits_purchased.v1'"
    ).fetchall()
    key = dedupe_key_of(charge)
    assert key is not None
    assert store.recorded([key, b"?" * 16, purchase_key.bytes]) == {key: (charge.originator_id, charge.event)}
    assert store.recorded([]) == {}


def test_parked_messages_are_read_back_unchanged(store: PostgresUsageStore) -> None:
    messages = [parked(number) for number in (2, 0, 1)]
    transaction = store.begin(())
    transaction.park(messages, [stream_id("new")] * 3)
    transaction.park(messages[:1], [stream_id("another")])
    commit(transaction)
    by_key = {message.dedupe_key: message for message in messages}
    assert store.parked([*by_key, b"?" * 16]) == by_key
    assert store.parked_with_open_organisation(10) == []


def test_parked_messages_of_open_and_unknown_organisations(store: PostgresUsageStore, ledger: Ledger) -> None:
    known, unknown = parked(0, "known"), parked(1, "unknown")
    transaction = store.begin(())
    transaction.park([known, unknown], [stream_id("known"), stream_id("unknown")])
    commit(transaction)
    credits_of(ledger).commands.open_organisation("known", context=request())
    later = START.replace(year=2030)
    assert store.parked_with_open_organisation(10) == [known]
    assert store.parked_before(later, 10) == [unknown]
    assert store.parked_before(START, 10) == []
    assert store.parked_with_open_organisation(0) == store.parked_before(later, 0) == []
    transaction = store.begin(())
    assert transaction.unpark([known.dedupe_key, b"?" * 16]) == 1
    commit(transaction)
    assert store.parked_with_open_organisation(10) == []


# -------------------------------------------------------------------------------------------- errors


def test_the_wait_for_the_write_lock_has_a_timeout(
    store: PostgresUsageStore, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.event_store.connections.SESSION", "SET lock_timeout = '50ms'")
    begin_logs(connection, 0)
    with connection.transaction():
        connection.execute(TAKE_WRITE_LOCK)
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            store.begin([move(0, 0, 3)])
    assert offsets(connection) == [(0, 0)]
    commit(store.begin([move(0, 0, 3)]))


def test_a_stalled_writer_is_cut_off(
    store: PostgresUsageStore, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "infra.event_store.connections.SESSION", "SET idle_in_transaction_session_timeout = '50ms'"
    )
    begin_logs(connection, 0)
    transaction = store.begin([move(0, 0, 3)])
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{WITHIN_S}s'")
        connection.execute(TAKE_WRITE_LOCK)  # it is released without the writer's help
    with pytest.raises(StoreUnavailable):
        commit(transaction)
    assert offsets(connection) == [(0, 0)]
    commit(store.begin([move(0, 0, 3)]))


def test_a_failed_connection_setup_leaves_no_connection(
    store: PostgresUsageStore, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "infra.event_store.connections.SESSION", "SET statement_timeout = 1; SELECT pg_sleep(30)"
    )
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.log_end()
    assert store._connections._by_purpose == {}
    monkeypatch.undo()
    assert store.log_end() == 0


def test_no_server_is_unavailable() -> None:
    store = PostgresUsageStore("postgresql://ledger@127.0.0.1:1/none")
    for ask in (store.log_end, lambda: store.load([stream_id("a")]), lambda: store.begin(())):
        with pytest.raises(StoreUnavailable):
            ask()
    store.close()


def test_the_service_cannot_change_events(store: PostgresUsageStore, ledger: Ledger) -> None:
    credits_of(ledger).commands.open_organisation("org-1", context=request())
    credits_of(ledger).commands.grant("org-1", 1, kind=GrantKind.ADMIN, reason="", context=request())
    store.log_end()
    for statement in (
        "UPDATE ledger.events SET topic = ''",
        "DELETE FROM ledger.events",
        "TRUNCATE ledger.events",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            store._connections._by_purpose["reading"].execute(statement.encode())


def test_the_wait_for_a_silent_server_has_a_timeout(
    store: PostgresUsageStore, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.event_store.async_copy.SILENCE_MAX_S", 0.1)
    begin_logs(connection, 0)
    connection.execute(
        "CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_sleep(1); RETURN NEW; END'"
    )
    connection.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON ledger.events FOR EACH ROW EXECUTE FUNCTION pg_temp.wait()"
    )
    account = Account()
    charge = account.charge(1)
    transaction = store.begin([move(0, 0, 3)])
    transaction.start_commit([charge], store.rows([charge], [b"k" * 16]), [])
    with pytest.raises(StoreUnavailable, match="did not reply"):
        transaction.finish_commit()
    assert store._connections._by_purpose == {}
