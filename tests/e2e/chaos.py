"""Chaos: usage flows while consumers, projector, database and broker are killed; then the auditor counts.

Every round publishes a part of the traffic, kills consumers in the middle (SIGKILL), waits until they make
progress, and kills the projector while it works.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.e2e.auditing import Report, audit
from tests.e2e.ledger_writer import LedgerWriter
from tests.e2e.pipeline_environment import PipelineEnvironment, Publisher, running_pipeline
from tests.e2e.processes import Worker, run_command
from tests.e2e.traffic import Outgoing, Traffic

RESUMES_WITHIN_S = 120.0
"""A killed member blocks its group until its session ends (6 s), and joins on the embedded broker are slow.
The rest of the time is for a busy machine."""


@dataclass(frozen=True)
class Plan:
    """The size of a run. Rounds count from 0; in the rounds `pair_rounds` two consumers share a group."""

    seed: int
    messages: int
    organisations: int
    rounds: int
    pair_rounds: range
    database_rounds: frozenset[int]
    broker_rounds: frozenset[int] = frozenset()
    projector_kills: int = 2
    leaves_broken_groups: bool = False
    """Whether consumers change to a group with another name if theirs is stuck. The embedded broker may wait
    forever for a leader that was killed in a rebalance. This is safe: a group only assigns partitions, and
    the positions are in the database. Tests on real Kafka do not use it."""
    longest_wait_s: float = 0.4


@dataclass
class KillCounts:
    """The number of kills of each kind."""

    kills: int = 0
    database_kills: int = 0
    broker_kills: int = 0
    left_groups: int = 0


class Chaos:
    """One run of a plan in a pipeline environment. `restart_broker` kills a broker and starts it again."""

    def __init__(
        self, plan: Plan, pipeline_env: PipelineEnvironment, restart_broker: Callable[[], None] | None = None
    ) -> None:
        self.tally = KillCounts()
        self._plan = plan
        self._pipeline_env = pipeline_env
        self._restart_broker = restart_broker
        self._random = Random(plan.seed)
        self._traffic = Traffic(
            plan.seed,
            messages=plan.messages,
            organisations=plan.organisations,
            partitions=pipeline_env.partitions,
        )
        # The group knows a static member by its name, so it rejoins without a rebalance.
        self._steady = pipeline_env.worker("steady", "consume", KAFKA_GROUP_INSTANCE_ID="steady")
        self._guest = pipeline_env.worker("guest", "consume")
        self._projector = pipeline_env.worker("projector", "project")
        pipeline_env.when_stuck = self._leave_group if plan.leaves_broken_groups else None

    def run(self) -> Report:
        """Publish and kill, wait until all records are processed, stop all processes, and run the auditor."""
        sys.stderr.write(f"chaos seed {self._plan.seed}\n")
        with running_pipeline(self._pipeline_env) as publisher:
            ledger_writer = LedgerWriter(self._pipeline_env.database_url, self._plan.seed)
            try:
                self._open(ledger_writer, "at the start")
                for worker in (self._steady, self._projector):
                    worker.start()
                ledger_writer.start()
                for number in range(self._plan.rounds):
                    self._round(number, publisher, ledger_writer)
            finally:
                ledger_writer.close()
            self._pipeline_env.wait_until_drained(publisher.ends, ledger_writer.names)
            for worker in self._pipeline_env.workers:
                if worker.is_running:
                    self._pipeline_env.wait_until_up(worker)  # before that, a signal just ends it
                    assert worker.stop(within_s=10) == 0, worker.log
            run_command("audit check", self._pipeline_env.environment)
            report = audit(self._pipeline_env, ledger_writer.accounts, publisher.ends)
        assert report.records >= len(self._traffic.records), "the broker lost what it acknowledged"
        return report

    def _round(self, number: int, publisher: Publisher, ledger_writer: LedgerWriter) -> None:
        plan, pipeline_env = self._plan, self._pipeline_env
        self._come_and_go(number)
        if number == plan.rounds // 2:
            self._open(ledger_writer, "in the middle")
        before_kill, after_kill = self._parts(number)
        publisher.send(before_kill)
        self._wait()
        if number in plan.database_rounds:
            self._restart_database()
        if number in plan.broker_rounds and self._restart_broker is not None:
            self._restart_broker()
            self.tally.broker_kills += 1
        victims = self._victims(number)
        for victim in victims:
            self._kill(victim)
        publisher.send(after_kill)
        publisher.settle()
        consumed = pipeline_env.consumed()
        for victim in victims:
            victim.start()
        pipeline_env.wait_for_progress(consumed, within_s=RESUMES_WITHIN_S)
        for _ in range(plan.projector_kills):
            pipeline_env.wait_until_up(self._projector)
            self._wait()
            self._kill(self._projector)
            self._projector.start()

    def _parts(self, number: int) -> tuple[list[Outgoing], list[Outgoing]]:
        """Return the records of a round: those before the kill, and those after it."""
        records, rounds = self._traffic.records, self._plan.rounds
        mine = records[len(records) * number // rounds : len(records) * (number + 1) // rounds]
        cut = self._random.randrange(len(mine) // 4, len(mine) * 3 // 4)
        return list(mine[:cut]), list(mine[cut:])

    def _come_and_go(self, number: int) -> None:
        """Let the second consumer join and leave gracefully."""
        if number == self._plan.pair_rounds.start:
            self._guest.start()
        elif number == self._plan.pair_rounds.stop and self._guest.is_running:
            self._pipeline_env.wait_until_up(self._guest)
            assert self._guest.stop(within_s=10) == 0, self._guest.log

    def _leave_group(self) -> None:
        self.tally.left_groups += 1
        for consumer in (self._steady, self._guest):
            was_running = consumer.is_running
            consumer.end()
            consumer.environment["KAFKA_GROUP_ID"] += "-again"
            if was_running:
                consumer.start()

    def _victims(self, number: int) -> list[Worker]:
        if number not in self._plan.pair_rounds:
            return [self._steady]
        return self._random.choice(([self._steady], [self._guest], [self._steady, self._guest]))

    def _kill(self, worker: Worker) -> None:
        worker.kill()
        self.tally.kills += 1

    def _restart_database(self) -> None:
        """Kill the postmaster like a power failure, and start it with the data on disk."""
        os.kill(self._pipeline_env.postgres.pid, signal.SIGKILL)
        self._wait()
        self._pipeline_env.postgres.start()
        self.tally.database_kills += 1

    def _open(self, ledger_writer: LedgerWriter, when: str) -> None:
        ledger_writer.open([each for each in self._traffic.organisations if each.opens == when])

    def _wait(self) -> None:
        time.sleep(self._random.uniform(0, self._plan.longest_wait_s))
