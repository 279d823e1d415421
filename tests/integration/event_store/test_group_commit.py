"""Commands of many threads in one transaction: each one is recorded, or refused, as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

from domain.credits.command_result import CommandResult
from domain.credits.errors import InsufficientCredits, OrganisationAlreadyOpen, PurchaseAlreadyRecorded
from domain.credits.events import GrantKind
from domain.credits.holds import HoldMode, HoldRequest
from domain.credits.ledger import Ledger
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import IdempotencyConflict, StoreUnavailable
from domain.shared.event_store import IdempotencyKey
from infra.event_store import command_transaction
from infra.event_store.datastore import TAKE_WRITE_LOCK
from infra.event_store.group_commit import GroupCommit
from infra.event_store.recorder import event_store_of
from infra.service.composition import credits_of, open_ledger

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
CONTEXT = CommandContext(NOON, "u-1", "request-1")
ORG, OTHER = "org-1", "org-2"

Recorded = RecordedResult[CommandResult]


def open_organisation(ledger: Ledger, organisation_id: str = ORG) -> Recorded:
    return credits_of(ledger).commands.open_organisation(organisation_id, context=CONTEXT)


def grant(ledger: Ledger, credits_count: int, organisation_id: str = ORG, key: str | None = None) -> Recorded:
    return credits_of(ledger).commands.grant(
        organisation_id,
        credits_count,
        kind=GrantKind.ADMIN,
        reason="goodwill",
        context=CONTEXT,
        idempotency_key=None if key is None else IdempotencyKey("grants", key, str(credits_count).encode()),
    )


def purchase(ledger: Ledger, organisation_id: str = ORG) -> Recorded:
    return credits_of(ledger).commands.record_purchase(
        organisation_id, 1_000, payment_id="pay-1", order_id="order-1", gateway="cash", context=CONTEXT
    )


def hold(ledger: Ledger, run_id: str, credits_count: int) -> Recorded:
    wanted = HoldRequest(run_id, credits_count, HoldMode.ALL_OR_NOTHING, None, None, True, 0, "", None)
    return credits_of(ledger).holds.place_hold(ORG, wanted, context=CONTEXT)


def group_commit_of(ledger: Ledger) -> GroupCommit:
    return event_store_of(ledger).group_commit


@pytest.fixture
def ledger(ledger: Ledger) -> Ledger:
    open_organisation(ledger)
    open_organisation(ledger, OTHER)
    return ledger


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@contextmanager
def one_group(
    ledger: Ledger, migrated_database: str, pool: ThreadPoolExecutor
) -> Iterator[Callable[[Callable[[], Recorded]], Future[Recorded]]]:
    """Collect commands into one group: a first command waits for the lock until all others wait, too."""
    waiting = group_commit_of(ledger)._waiting
    with psycopg.connect(migrated_database) as holder:
        holder.execute(TAKE_WRITE_LOCK)
        first = pool.submit(lambda: grant(ledger, 1))
        while not holder.execute(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        ).fetchall():
            sleep(0.001)
        count = 0

        def submit(command: Callable[[], Recorded]) -> Future[Recorded]:
            nonlocal count
            count += 1
            outcome = pool.submit(command)
            deadline = monotonic() + 10
            while len(waiting) < count and monotonic() < deadline:
                sleep(0.001)
            return outcome

        yield submit
        holder.rollback()
    first.result()


def test_many_commands_are_one_transaction(
    ledger: Ledger, migrated_database: str, pool: ThreadPoolExecutor, connection: psycopg.Connection[Any]
) -> None:
    with one_group(ledger, migrated_database, pool) as submit:
        outcomes = [submit(lambda n=n: grant(ledger, n, ORG if n % 2 else OTHER)) for n in range(1, 11)]
    assert sorted(outcome.result().value.credits for outcome in outcomes) == list(range(1, 11))
    written = connection.execute(
        "SELECT count(DISTINCT xmin::text) FROM ledger.events WHERE notification_id > 5"
    ).fetchone()
    assert written == (1,)
    positions = [outcome.result().position for outcome in outcomes]
    assert sorted(positions) == list(range(6, 16)), "each command has the position of its own event"
    assert ledger.organisation(ORG).balance == 200 + 1 + 25
    assert ledger.organisation(OTHER).balance == 200 + 30


def test_a_refused_command_leaves_no_trace_in_its_neighbours(
    ledger: Ledger, migrated_database: str, pool: ThreadPoolExecutor
) -> None:
    with one_group(ledger, migrated_database, pool) as submit:
        before = submit(lambda: hold(ledger, "run-1", 100))
        refused = submit(lambda: hold(ledger, "run-2", 1_000))
        after = submit(lambda: hold(ledger, "run-3", 101))
    assert before.result().value.available == 101
    assert after.result().value.available == 0
    with pytest.raises(InsufficientCredits):
        refused.result()
    assert set(ledger.organisation(ORG).holds) == {"run-1", "run-3"}


def test_one_payment_is_recorded_once_in_a_group(
    ledger: Ledger, migrated_database: str, pool: ThreadPoolExecutor
) -> None:
    with one_group(ledger, migrated_database, pool) as submit:
        outcomes = [submit(lambda org=org: purchase(ledger, org)) for org in (ORG, OTHER, ORG)]
    errors = [outcome.exception() for outcome in outcomes]
    assert [type(error) for error in errors] == [type(None), PurchaseAlreadyRecorded, PurchaseAlreadyRecorded]
    assert ledger.organisation(ORG).balance == 1_201


def test_one_organisation_opens_once_in_a_group(
    ledger: Ledger, migrated_database: str, pool: ThreadPoolExecutor
) -> None:
    with one_group(ledger, migrated_database, pool) as submit:
        outcomes = [submit(lambda: open_organisation(ledger, "org-3")) for _ in range(3)]
    errors = [outcome.exception() for outcome in outcomes if outcome.exception() is not None]
    assert len(errors) == 2
    assert {type(error) for error in errors} == {OrganisationAlreadyOpen}
    assert ledger.organisation("org-3").version == 2


def test_requests_with_one_idempotency_key_in_a_group(
    ledger: Ledger, migrated_database: str, pool: ThreadPoolExecutor
) -> None:
    with one_group(ledger, migrated_database, pool) as submit:
        outcomes = [submit(lambda: grant(ledger, 10, key="k")) for _ in range(3)]
        conflict = submit(lambda: grant(ledger, 11, key="k"))
    results = [outcome.result() for outcome in outcomes]
    assert sorted(result.repeated for result in results) == [False, True, True]
    assert len({(result.value, result.position) for result in results}) == 1
    with pytest.raises(IdempotencyConflict):
        conflict.result()
    assert ledger.organisation(ORG).balance == 211


def test_commands_that_another_writer_outdates_decide_again(
    ledger: Ledger, migrated_database: str, service_database: str, pool: ThreadPoolExecutor
) -> None:
    with closing(open_ledger(service_database)) as other:
        grant(ledger, 1)  # the organisation is in memory now
        grant(other, 1_000)
        assert hold(ledger, "run-1", 1_200).value.available == 1
        grant(other, 10)
        assert grant(ledger, 5).value.balance == 1_216


def test_a_lost_reply_to_the_commit_is_settled_by_looking(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = command_transaction.fetch_results

    def lose_the_reply(pgconn: Any) -> Any:
        monkeypatch.undo()
        fetch(pgconn)
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(command_transaction, "fetch_results", lose_the_reply)
    result = grant(ledger, 10, key="k")
    assert (result.value.balance, result.repeated) == (210, False)
    assert grant(ledger, 10, key="k").position == result.position
    assert ledger.organisation(ORG).balance == 210


def test_a_commit_that_did_not_happen_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_the_connection(pgconn: Any) -> Any:
        monkeypatch.undo()
        pgconn.finish()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(command_transaction, "start_copy", lambda pgconn, *_: lose_the_connection(pgconn))
    with pytest.raises(StoreUnavailable):
        grant(ledger, 10, key="k")
    assert ledger.organisation(ORG).balance == 200
    assert not grant(ledger, 10, key="k").repeated


def test_a_lock_that_takes_too_long_refuses_the_group(
    ledger: Ledger, migrated_database: str, connection: psycopg.Connection[Any]
) -> None:
    with group_commit_of(ledger)._store._connections.use("writing") as writer:
        writer.execute("SET lock_timeout = '50ms'")
    with psycopg.connect(migrated_database) as holder:
        holder.execute(TAKE_WRITE_LOCK)
        with pytest.raises(StoreUnavailable):
            grant(ledger, 10)
    assert grant(ledger, 10).value.balance == 210


def test_closing_refuses_what_waits_and_finishes_what_is_under_way(
    ledger: Ledger, migrated_database: str, pool: ThreadPoolExecutor
) -> None:
    with one_group(ledger, migrated_database, pool) as submit:
        waiting = submit(lambda: grant(ledger, 10))
        closed = pool.submit(group_commit_of(ledger).close)
        while not group_commit_of(ledger)._is_closed:
            sleep(0.001)
    closed.result()
    with pytest.raises(StoreUnavailable, match="shutting down"):
        waiting.result()
    with pytest.raises(StoreUnavailable, match="shutting down"):
        grant(ledger, 10)
    assert ledger.organisation(ORG).balance == 201
