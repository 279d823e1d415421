"""A ledger with a long history: its effect on the ingest, and an organisation's history's effect on its
loading.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from benchmarks.checks import check_charges, must_equal
from benchmarks.environment import MIGRATED, BenchmarkEnvironment, Sample
from benchmarks.feeding import feed, open_ingest, start_position
from benchmarks.ingest import ingest_into
from benchmarks.organisations import EVENTS_EACH, open_organisations
from benchmarks.traffic import Traffic
from domain.credits.ledger import Ledger
from domain.credits.organisation_state import SNAPSHOT_EVERY
from infra.event_store.usage_store import PostgresUsageStore
from infra.service.composition import open_ledger

LONG: Final = "org-long"
SHORT: Final = "org-short"
SHORT_EVENTS: Final = 10
_BATCH: Final = 2_000
_CHUNK: Final = 100_000


class PastLedger:
    """A database with earlier charges, all written by the ingest. Every measurement adds more charges."""

    def __init__(self, name: str, charges: int) -> None:
        self._name = name
        self._charges = charges
        self._written = 0
        self._credits = 0
        self.conninfo = ""

    def set_up(self, bench_env: BenchmarkEnvironment) -> None:
        """Write the charges."""
        self._create(bench_env, bench_env.organisations)
        self._complete(bench_env)

    def ingest(self, bench_env: BenchmarkEnvironment) -> Sample:
        """Measure new messages into this ledger."""
        return ingest_into(bench_env, self.conninfo, self._new_traffic, _BATCH)

    def _create(self, bench_env: BenchmarkEnvironment, organisations: Sequence[str]) -> None:
        self.conninfo = bench_env.create_database(self._name, MIGRATED)
        open_organisations(self.conninfo, organisations)
        start_position(self.conninfo)

    def _complete(self, bench_env: BenchmarkEnvironment) -> None:
        self._write(bench_env.organisations, self._charges - self._written)
        check_charges(self.conninfo, self._written, self._credits)
        bench_env.vacuum(self._name)
        self._new_traffic = Traffic(
            bench_env.organisations, seed=0, first_message=self._written, first_offset=self._written
        )

    def _write(self, organisations: Sequence[str], charges: int) -> None:
        """Write charges of organisations, each in messages of its own."""
        traffic = Traffic(
            organisations, seed=1 + self._written, first_message=self._written, first_offset=self._written
        )
        with closing(PostgresUsageStore(self.conninfo)) as store, open_ingest(store) as ingest:
            for start in range(0, charges, _CHUNK):
                feed(ingest, traffic.take(min(_CHUNK, charges - start)), _BATCH)
        self._written += charges
        self._credits += traffic.credits


class LongHistory(PastLedger):
    """A ledger that also has an organisation with very many events, and one with very few."""

    def __init__(self, name: str, charges: int, long_history: int) -> None:
        super().__init__(name, charges)
        self._long_history = long_history

    def set_up(self, bench_env: BenchmarkEnvironment) -> None:
        """Write both histories, then those of all others.

        The long one ends half a snapshot interval after its last snapshot: the average of all histories.
        """
        self._create(bench_env, [*bench_env.organisations, LONG, SHORT])
        self._write([LONG], self._long_history - EVENTS_EACH)
        self._write([LONG], SNAPSHOT_EVERY // 2)
        self._write([SHORT], SHORT_EVENTS - EVENTS_EACH)
        self._complete(bench_env)

    def load(self, bench_env: BenchmarkEnvironment) -> Sample:
        """Measure the loading of both organisations, in turns, over open connections."""
        long_us: list[float] = []
        short_us: list[float] = []
        with open_ledger(bench_env.service_url(self._name)) as ledger:
            for _ in range(10):
                self._load_both(ledger)
            with bench_env.stopwatch() as watch:
                for _ in range(bench_env.sizes.loads):
                    seconds = self._load_both(ledger)
                    long_us.append(seconds[0] * 1e6)
                    short_us.append(seconds[1] * 1e6)
        return watch.sample(
            2 * bench_env.sizes.loads,
            long_history_load_us=statistics.median(long_us),
            short_history_load_us=statistics.median(short_us),
        )

    def _load_both(self, ledger: Ledger) -> tuple[float, float]:
        started = time.perf_counter()
        long = ledger.organisation(LONG)
        between = time.perf_counter()
        short = ledger.organisation(SHORT)
        ended = time.perf_counter()
        long_events = self._long_history + SNAPSHOT_EVERY // 2
        must_equal("events of the histories", (long.version, short.version), (long_events, SHORT_EVENTS))
        long.check_invariants()
        return between - started, ended - between
