"""The limit: COPY of the ingest's rows, which are built beforehand. No writer can be faster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import psycopg

from benchmarks.checks import check_charges
from benchmarks.environment import BenchmarkEnvironment, Sample
from benchmarks.feeding import feed, open_ingest, start_position
from domain.shared.aggregate import EventEnvelope
from infra.event_store.mapper import COPY_EVENTS
from infra.event_store.usage_store import PostgresUsageStore


class _RecordingStore(PostgresUsageStore):
    """A store that keeps every payload it builds."""

    payloads: list[bytes]

    def rows(self, events: Sequence[EventEnvelope], charge_keys: Sequence[bytes]) -> bytes:
        payload = super().rows(events, charge_keys)
        self.payloads.append(payload)
        return payload


class StorageLimit:
    """COPY of prebuilt payloads, one per commit, into the same schema with all its indexes."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._payloads: list[bytes] = []
        self._credits = 0

    def set_up(self, bench_env: BenchmarkEnvironment) -> None:
        """Run the ingest once and keep the payloads it writes. This is also the warm-up."""
        records, self._credits = bench_env.usage
        with bench_env.database() as conninfo, closing(_RecordingStore(conninfo)) as store:
            store.payloads = self._payloads
            start_position(conninfo)
            with open_ingest(store) as ingest:
                feed(ingest, records, self._batch_size)
            check_charges(conninfo, len(records), self._credits)

    def measure(self, bench_env: BenchmarkEnvironment) -> Sample:
        """Measure the COPY of all payloads, without positions, lock or NOTIFY."""
        charges = bench_env.sizes.ingest
        with bench_env.database() as conninfo:
            with psycopg.connect(conninfo, autocommit=True) as connection, bench_env.stopwatch() as watch:
                for payload in self._payloads:
                    with connection.cursor().copy(COPY_EVENTS) as copy:
                        copy.write(payload)
            check_charges(conninfo, charges, self._credits)
        return watch.sample(charges)
