"""Replay: reads, decodes and applies the whole log in one thread."""

from __future__ import annotations

from contextlib import closing

import psycopg

from benchmarks.checks import must_equal
from benchmarks.environment import OPENED, BenchmarkEnvironment, Sample
from benchmarks.feeding import feed_all, start_position
from benchmarks.organisations import EVENTS_EACH, GRANTED_CREDITS, TRIAL_CREDITS
from benchmarks.traffic import Traffic
from domain.event_catalogue import EventCodec
from domain.shared.stream_keys import stream_id
from infra.event_store.replay import replay_log
from infra.event_store.usage_store import PostgresUsageStore

_NAME = "replayed"


class ReplayedLedger:
    """A ledger that the ingest writes once, and that every measurement replays."""

    def set_up(self, bench_env: BenchmarkEnvironment) -> None:
        """Write the log."""
        traffic = Traffic(bench_env.organisations)
        self._conninfo = bench_env.create_database(_NAME, OPENED)
        start_position(self._conninfo)
        feed_all(self._conninfo, traffic.take(bench_env.sizes.replay), 2_000)
        self._credits = traffic.credits
        bench_env.vacuum(_NAME)

    def measure(self, bench_env: BenchmarkEnvironment) -> Sample:
        """Measure a replay of the log, and compare it with the state that the consumer would load."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection, bench_env.stopwatch() as watch:
            replayed = replay_log(connection, EventCodec())
        opened = len(bench_env.organisations)
        must_equal("events replayed", replayed.events, bench_env.sizes.replay + EVENTS_EACH * opened)
        balances = {stream: each.balance for stream, each in replayed.organisations.items()}
        granted = (TRIAL_CREDITS + GRANTED_CREDITS) * opened
        must_equal("sum of balances", sum(balances.values()), granted - self._credits)
        with closing(PostgresUsageStore(self._conninfo)) as store:
            loaded = store.load([stream_id(name) for name in bench_env.organisations])
        must_equal("balances", balances, {stream: each.balance for stream, each in loaded.items()})
        return watch.sample(replayed.events)
