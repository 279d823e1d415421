"""Monitors the memory of the parts and the lag of the log's readers, and kills parts."""

from __future__ import annotations

from collections import Counter
from random import Random
from statistics import median
from threading import Event
from typing import Any, Final

import msgspec
import psutil
import psycopg

from benchmarks.soak.load import Findings
from benchmarks.soak.service import Service

SAMPLE_EVERY_S: Final = 2.0
KILL_EVERY_S: Final = (8.0, 25.0)
NEVER_KILLED: Final = ("simulate-pipeline", "sandbox-gateway")
"""These parts keep their account or their payments in memory. If they were killed, the check at the end would
be impossible."""
GROWTH_MB_MAX: Final = 40.0
RSS_MB_MAX: Final = 500.0
LAG_MAX: Final = 5_000
_MB: Final = 1 << 20

_LAGS: Final = """
    SELECT log_end - projected, log_end - published, log_end - delivered, pending FROM (SELECT
        (SELECT coalesce(max(notification_id), 0) FROM ledger.events) AS log_end,
        (SELECT min("position") FROM projections.positions) AS projected,
        (SELECT min("position") FROM ledger.publisher_positions) AS published,
        (SELECT "position" FROM ledger.log_readers WHERE reader = 'webhooks') AS delivered,
        (SELECT count(*) FROM ledger.webhook_deliveries WHERE next_attempt_at IS NOT NULL) AS pending
    ) AS positions
"""


class Memory(msgspec.Struct):
    """Resident memory of a part in MB: the first and last sample since its last start, and the maximum."""

    pid: int
    first: float
    last: float
    most: float
    samples: int = 1


class ProcessMonitor:
    """Takes samples until stopped."""

    def __init__(self, service: Service, findings: Findings) -> None:
        self.memory: dict[str, Memory] = {}
        self.lags: list[tuple[int, int, int, int]] = []
        self._service = service
        self._findings = findings

    def run(self, stop: Event) -> None:
        """Take samples until stopped."""
        while not stop.wait(SAMPLE_EVERY_S):
            for name, part in self._service.parts().items():
                try:
                    self._note(name, part.pid, part.memory_info().rss / _MB)
                except psutil.Error:
                    continue
            self._note("servers", 0, self._service.servers_rss() / _MB)
            try:
                with psycopg.connect(self._service.database_url, autocommit=True) as connection:
                    row = connection.execute(_LAGS).fetchone()
            except psycopg.OperationalError as error:
                self._findings.add(f"the database did not answer: {error}")
                continue
            if row is not None and None not in row:
                self.lags.append(row)

    def check_limits(self) -> None:
        """Add findings for memory that grows and for readers that fall behind."""
        for name, memory in self.memory.items():
            if name != "servers" and memory.most > RSS_MB_MAX:
                self._findings.add(f"{name} took {memory.most:.0f} MB")
            if name != "servers" and memory.last - memory.first > GROWTH_MB_MAX:
                self._findings.add(f"{name} grew from {memory.first:.0f} to {memory.last:.0f} MB")
        for place, name in enumerate(("projections", "publisher", "webhooks")):
            late = [lags[place] for lags in self.lags[-len(self.lags) // 4 :]]
            if late and median(late) > LAG_MAX:
                self._findings.add(f"{name} are {median(late):.0f} positions behind, and stay so")

    def report(self) -> dict[str, Any]:
        """Return what was measured."""
        names = ("projections", "publisher", "webhooks", "webhooks_pending")
        return {
            "memory_mb": {
                name: {key: round(getattr(memory, key), 1) for key in ("first", "last", "most")}
                for name, memory in sorted(self.memory.items())
            },
            "lag_positions": {
                name: {"median": median(column), "most": max(column), "last": column[-1]}
                for name, column in zip(names, zip(*self.lags, strict=True), strict=True)
            },
        }

    def _note(self, name: str, pid: int, rss_mb: float) -> None:
        known = self.memory.get(name)
        if known is None or known.pid != pid:
            most = rss_mb if known is None else max(known.most, rss_mb)
            self.memory[name] = Memory(pid, rss_mb, rss_mb, most)
            return
        known.samples += 1
        # A part that has just started still imports modules, so its first sample is taken later.
        if known.samples <= _SETTLED_AFTER:
            known.first = rss_mb
        known.last = rss_mb
        known.most = max(known.most, rss_mb)


_SETTLED_AFTER: Final = 8


def kill_at_random_times(service: Service, killed: Counter[str], stop: Event, seed: int) -> None:
    """Kill a part of the service at random times until stopped."""
    random = Random(seed)
    while not stop.wait(random.uniform(*KILL_EVERY_S)):
        name = random.choice([each for each in sorted(service.parts()) if each not in NEVER_KILLED])
        killed[name] += service.kill(name)
