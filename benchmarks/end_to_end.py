"""End to end: from a topic to the projections, through the broker's socket and separate processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

import psutil
import psycopg

from benchmarks.checks import WrongResult, check_charges, check_position, check_projections
from benchmarks.environment import BenchmarkEnvironment, Sample, Stopwatch, cpu_s
from benchmarks.processes import Worker, ending_children, start_worker, stop_worker
from benchmarks.traffic import HEADERS, TOPIC, Traffic
from infra.kafka.connections import Kafka
from infra.settings import Settings
from projections.connection import Connection

PARTITIONS: Final = 8
_LOOK_EVERY_S: Final = 0.01
_TIMEOUT_S: Final = 300.0
_STARTED: Final = "SELECT count(*) FROM ledger.consumer_positions WHERE topic = %s"
_DONE: Final = """
    SELECT coalesce((SELECT sum(next_offset) FROM ledger.consumer_positions WHERE topic = %s), 0) = %s
       AND (SELECT min("position") FROM projections.positions)
         = (SELECT max(notification_id) FROM ledger.events)
"""


class EndToEnd:
    """A consumer process and a projector process work off a topic that was filled before."""

    def __init__(self) -> None:
        self._runs = 0

    def set_up(self, bench_env: BenchmarkEnvironment) -> None:
        """Fill the topic."""
        traffic = Traffic(bench_env.organisations)
        settings = Settings(kafka_bootstrap_servers=bench_env.broker_address, usage_partitions=PARTITIONS)
        with closing(Kafka(settings)) as kafka:
            kafka.ensure_topics()
            producer = kafka.producer()
            try:
                for _ in range(0, bench_env.sizes.end_to_end, 10_000):
                    sent = [
                        producer.send(TOPIC, key=record.key, value=record.value, headers=HEADERS)
                        for record in traffic.take(10_000)
                    ]
                    for acknowledged in sent:
                        acknowledged.get(timeout=30)
            finally:
                producer.close()
        self._credits = traffic.credits

    def measure(self, bench_env: BenchmarkEnvironment) -> Sample:
        """Measure from the assignment of partitions to the consumer until the projections reach the end of
        the log.

        When a consumer gets a partition, it stores its start position. The stopwatch starts then: both
        processes are running, nothing is charged yet, and the time of joining the consumer group is not
        included.
        """
        messages = bench_env.sizes.end_to_end
        self._runs += 1
        task = {"broker": bench_env.broker_address, "group": f"run-{self._runs}", "topic": TOPIC}
        with bench_env.database() as conninfo:
            with bench_env.stopwatch() as watch, ExitStack() as stack:
                workers = []
                for name in ("project", "consume"):
                    workers.append(start_worker(name, {"database": conninfo, **task}))
                    stack.enter_context(ending_children(workers[-1]))
                sample = _follow(conninfo, workers, messages, watch)
                for worker in reversed(workers):
                    stop_worker(worker)
            check_charges(conninfo, messages, self._credits)
            check_position(conninfo, TOPIC, messages)
            check_projections(conninfo, self._credits)
        return sample


def _follow(conninfo: str, workers: Sequence[Worker], messages: int, watch: Stopwatch) -> Sample:
    processes = [psutil.Process(worker.pid) for worker in workers]
    with psycopg.connect(conninfo, autocommit=True) as connection:
        _wait_until(connection, _STARTED, (TOPIC,), workers)
        watch.start()
        before = [cpu_s(process) for process in processes]
        _wait_until(connection, _DONE, (TOPIC, messages), workers)
        watch.stop()
        after = [cpu_s(process) for process in processes]
    projector_s, consumer_s = (end - start for start, end in zip(before, after, strict=True))
    return Sample(
        messages,
        watch.seconds,
        consumer_s + projector_s,
        watch.postgres_s,
        {"consumer_us": consumer_s / messages * 1e6, "projector_us": projector_s / messages * 1e6},
    )


def _wait_until(
    connection: Connection, condition: str, values: tuple[Any, ...], workers: Sequence[Worker]
) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        row = connection.execute(condition.encode(), values).fetchone()
        if row is not None and row[0]:
            return
        if any(worker.poll() is not None for worker in workers) or time.monotonic() > deadline:
            raise WrongResult(f"the processes ended or hang before: {condition}")
        time.sleep(_LOOK_EVERY_S)
