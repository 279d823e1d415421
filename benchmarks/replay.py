"""Replay: the whole log read, decoded and applied, in one thread."""

from __future__ import annotations

from contextlib import closing

import psycopg

from benchmarks.checks import must_equal
from benchmarks.feeding import feed_all, start_position
from benchmarks.lab import OPENED, Lab, Sample
from benchmarks.organisations import EVENTS_EACH, GRANTED_CREDITS, TRIAL_CREDITS
from benchmarks.traffic import Traffic
from domain.catalogue import FactCodec
from domain.identity import stream_id
from infra.event_store.replay import replay_log
from infra.event_store.usage_store import PostgresUsageStore

_NAME = "replayed"


class ReplayedLedger:
    """A ledger written once by the ingest, and replayed as often as one likes."""

    def set_up(self, lab: Lab) -> None:
        """Write the log."""
        traffic = Traffic(lab.organisations)
        self._conninfo = lab.create_database(_NAME, OPENED)
        start_position(self._conninfo)
        feed_all(self._conninfo, traffic.take(lab.sizes.replay), 2_000)
        self._credits = traffic.credits
        lab.tidy(_NAME)

    def measure(self, lab: Lab) -> Sample:
        """Measure a replay of the log, and hold it against what the consumer would load."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection, lab.stopwatch() as watch:
            replayed = replay_log(connection, FactCodec())
        opened = len(lab.organisations)
        must_equal("events replayed", replayed.events, lab.sizes.replay + EVENTS_EACH * opened)
        balances = {stream: each.balance for stream, each in replayed.organisations.items()}
        granted = (TRIAL_CREDITS + GRANTED_CREDITS) * opened
        must_equal("sum of balances", sum(balances.values()), granted - self._credits)
        with closing(PostgresUsageStore(self._conninfo)) as store:
            loaded = store.load([stream_id(name) for name in lab.organisations])
        must_equal("balances", balances, {stream: each.balance for stream, each in loaded.items()})
        return watch.sample(replayed.events)
