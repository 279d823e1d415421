"""Holds: place and settle, by threads of one process, against the same writes by hand-written SQL.

The comparison is the least that an endpoint can do: one transaction with a conditional UPDATE of a balance,
an INSERT of an event and an INSERT of an idempotency key. Neither side includes HTTP. A projector runs as in
production.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, Final

import psycopg

from benchmarks.checks import must_equal
from benchmarks.environment import MIGRATED, BenchmarkEnvironment, Sample
from benchmarks.processes import ending_children, start_worker, stop_worker
from domain.credits.holds import HoldMode, HoldRequest
from domain.pricing.rate_card import RateCard, UsageType
from domain.shared.command_context import CommandContext
from domain.shared.event_store import IdempotencyKey
from infra.service.composition import credits_of, open_ledger

CREDITS: Final = 10
_BY_HAND: Final = """
    CREATE TABLE by_hand_balances (organisation_id text PRIMARY KEY, available bigint NOT NULL);
    CREATE TABLE by_hand_events (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, organisation_id text NOT NULL,
        topic text NOT NULL, state bytea NOT NULL
    );
    CREATE TABLE by_hand_keys (key text PRIMARY KEY, answer bytea NOT NULL)
"""

Cycle = Callable[[str], None]


def holds(bench_env: BenchmarkEnvironment, *, threads: int, organisations: int | None = None) -> Sample:
    """Measure holds of the ledger; each cycle is two writes."""
    names = bench_env.organisations[:organisations]
    cycles = bench_env.sizes.hold_cycles
    with bench_env.database() as conninfo, closing(open_ledger(conninfo)) as ledger:
        commands, rates = credits_of(ledger).holds, RateCard()

        def cycle(organisation_id: str) -> None:
            wanted = HoldRequest(
                secrets.token_hex(8),
                CREDITS,
                HoldMode.ALL_OR_NOTHING,
                UsageType.PHOTO_PROCESSING,
                CREDITS,
                ai_search=True,
                event_id=0,
                event_name="",
                user=None,
            )
            placed = commands.place_hold(
                organisation_id, wanted, context=_context(), idempotency_key=_key("hold")
            )
            assert placed.value.hold is not None
            commands.settle_hold(
                organisation_id,
                placed.value.hold.hold_id,
                CREDITS,
                rates=rates,
                context=_context(),
                idempotency_key=_key("settle"),
            )

        before = sum(ledger.organisation(name).balance for name in names)
        projector = start_worker("project", {"database": conninfo})
        with ending_children(projector):
            with bench_env.stopwatch() as watch:
                _run(cycle, names, cycles, threads)
            stop_worker(projector)
        after = sum(ledger.organisation(name).balance for name in names)
    must_equal("credits of settled holds", before - after, cycles * CREDITS)
    return watch.sample(2 * cycles)


def holds_by_hand(
    bench_env: BenchmarkEnvironment, *, threads: int, organisations: int | None = None
) -> Sample:
    """Measure the same writes by hand-written SQL, on a connection per thread."""
    names = bench_env.organisations[:organisations]
    cycles = bench_env.sizes.hold_cycles
    with bench_env.database(MIGRATED) as conninfo, ExitStack() as stack:
        owner = bench_env.owner_url(psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"])  # type: ignore[arg-type]
        connections: SimpleQueue[psycopg.Connection[Any]] = SimpleQueue()
        for _ in range(threads):
            connections.put(stack.enter_context(psycopg.connect(owner, autocommit=True)))
        setting_up = stack.enter_context(psycopg.connect(owner, autocommit=True))
        setting_up.execute(_BY_HAND)
        for name in names:
            setting_up.execute("INSERT INTO by_hand_balances VALUES (%s, 1000000000)", [name])

        def write(organisation_id: str, topic: str, credits_count: int) -> None:
            connection = connections.get()
            with connection.transaction():
                connection.execute(
                    "UPDATE by_hand_balances SET available = available - %s"
                    " WHERE organisation_id = %s AND available >= %s",
                    (credits_count, organisation_id, credits_count),
                )
                connection.execute(
                    "INSERT INTO by_hand_events (organisation_id, topic, state) VALUES (%s, %s, %s)",
                    (organisation_id, topic, bytes(200)),
                )
                connection.execute(
                    "INSERT INTO by_hand_keys VALUES (%s, %s)", (secrets.token_hex(16), bytes(150))
                )
            connections.put(connection)

        def cycle(organisation_id: str) -> None:
            write(organisation_id, "hold_placed", CREDITS)
            write(organisation_id, "hold_settled", 0)

        with bench_env.stopwatch() as watch:
            _run(cycle, names, cycles, threads)
        row = setting_up.execute("SELECT sum(1000000000 - available) FROM by_hand_balances").fetchone()
    assert row is not None
    must_equal("credits of holds by hand", int(row[0]), cycles * CREDITS)
    return watch.sample(2 * cycles)


def _run(cycle: Cycle, names: Sequence[str], cycles: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(cycle, (names[number % len(names)] for number in range(cycles))):
            pass


def _context() -> CommandContext:
    return CommandContext(datetime.now(UTC), "benchmark", secrets.token_hex(8))


def _key(scope: str) -> IdempotencyKey:
    return IdempotencyKey(scope, secrets.token_hex(16), bytes(32))
