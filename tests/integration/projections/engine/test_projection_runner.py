"""The runner wakes up for writers, survives restarts of the database, and stops on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from psycopg import sql

from domain.shared.errors import UnknownEventType
from projections.credits import queries as credit_queries
from projections.engine.runner import Progress, ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.histories import Account
from tests.integration.projections.conftest import Ledger

PATIENCE_S = 20.0


@contextmanager
def running(ledger: Ledger) -> Iterator[ProjectionRunner]:
    runner = ProjectionRunner(ledger.service, ALL_PROJECTIONS, batch_size=50)
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        yield runner
    finally:
        runner.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> float:
    """Return the seconds it took for a condition to hold."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < PATIENCE_S, "the condition never became true"
        time.sleep(0.005)
    return time.monotonic() - started


def reached(ledger: Ledger, position: int) -> Callable[[], bool]:
    return lambda: credit_queries.positions(ledger.connection).position >= position


def test_it_catches_up_and_returns(ledger: Ledger) -> None:
    account = Account(trial_credits=200)
    account.charge(5)
    end = ledger.append(account)
    runner = ProjectionRunner(ledger.service, ALL_PROJECTIONS)

    assert runner.progress() == Progress({}, 0, 0, 0)
    assert runner.catch_up() == end
    everywhere = dict.fromkeys(["balance", "payment_flags", "payments", "statement"], end)
    assert runner.progress() == Progress(everywhere, end, end, 0)
    assert runner.catch_up() == 0
    ledger.assert_projected()


def test_it_wakes_when_a_writer_commits(ledger: Ledger) -> None:
    account = Account(trial_credits=200)
    with running(ledger) as runner:
        wait_until(reached(ledger, ledger.append(account)))
        delays_s = []
        for _ in range(9):
            account.charge(1)
            delays_s.append(wait_until(reached(ledger, ledger.append(account))))
        wait_until(lambda: runner.progress().lag == 0)

    # Well below the poll interval of half a second, which would find the events anyway.
    assert sorted(delays_s)[len(delays_s) // 2] < 0.25
    ledger.assert_projected()


def test_it_finds_events_without_a_notification(ledger: Ledger) -> None:
    account = Account()
    with running(ledger):
        wait_until(reached(ledger, ledger.append(account)))
        account.charge(1)
        (envelope,) = account.collect()
        ledger.log.append(envelope)
        ledger.connection.execute(
            "INSERT INTO ledger.events (originator_id, originator_version, topic, state)"
            " SELECT %s, 2, 'usage_charged.v1', %s",
            [envelope.originator_id, encoded(envelope.event)],
        )
        wait_until(reached(ledger, 2))
    ledger.assert_projected()


def test_concurrent_runners_apply_every_event_once(ledger: Ledger) -> None:
    account = Account(trial_credits=200)
    with ExitStack() as runners:
        for _ in range(2):
            runners.enter_context(running(ledger))
        for number in range(100):
            account.charge(number, f"run-{number % 7}")
            end = ledger.append(account)
        wait_until(reached(ledger, end))
    ledger.assert_projected()


def test_it_survives_lost_connections_and_an_unavailable_database(ledger: Ledger) -> None:
    account = Account(trial_credits=200)
    with running(ledger), psycopg.connect(server_of(ledger), autocommit=True) as server:
        for number in range(60):
            account.charge(number, f"run-{number % 7}")
            end = ledger.append(account)
            if number % 10 == 0:
                end_connections_of_runners(ledger, server)
        allow_connections(ledger, server, allowed=False)
        end_connections_of_runners(ledger, server)
        time.sleep(0.5)
        allow_connections(ledger, server, allowed=True)
        wait_until(reached(ledger, end))
    ledger.assert_projected()


def test_an_event_of_a_newer_version_stops_it(ledger: Ledger) -> None:
    ledger.connection.execute(
        "INSERT INTO ledger.events (originator_id, originator_version, topic, state)"
        " VALUES (gen_random_uuid(), 1, 'from_the_future.v1', '[]')"
    )
    with pytest.raises(UnknownEventType):
        ProjectionRunner(ledger.service, ALL_PROJECTIONS).run()


def encoded(event: object) -> bytes:
    from tests.histories import CODEC

    return CODEC.encode(event)  # type: ignore[arg-type]


def server_of(ledger: Ledger) -> str:
    return psycopg.conninfo.make_conninfo(ledger.owner, dbname="postgres")


def end_connections_of_runners(ledger: Ledger, server: psycopg.Connection) -> None:
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s",
        [ledger.connection.info.dbname, ledger.connection.info.backend_pid],
    )


def allow_connections(ledger: Ledger, server: psycopg.Connection, *, allowed: bool) -> None:
    server.execute(
        sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
            sql.Identifier(ledger.connection.info.dbname), sql.SQL(str(allowed).lower())
        )
    )
