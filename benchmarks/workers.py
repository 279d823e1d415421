"""Worker processes: `python -m benchmarks.workers NAME`, with a task as JSON on standard input.

A worker prints one line when it is ready, and one line of JSON when it is done or was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any, Final

import msgspec
import psutil

from benchmarks.feeding import feed, open_ingest
from benchmarks.traffic import Traffic, organisation_ids
from domain.credits.events import GrantKind
from domain.shared.command_context import CommandContext
from infra.event_store.usage_store import PostgresUsageStore
from infra.service.composition import credits_of, open_ledger, usage_consumer
from infra.service.process import stop_on_signals, tune_for_throughput
from infra.service.telemetry import log_to_stderr
from infra.settings import Settings
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS

Task = Mapping[str, Any]
Report = dict[str, Any]
CHUNK: Final = 20_000


def consume(task: Task) -> Report:
    """Charge a topic's records like the product's consumer process."""
    stop = stop_on_signals()
    settings = Settings(
        kafka_bootstrap_servers=task["broker"],
        kafka_group_id=task["group"],
        usage_topic=task["topic"],
        rate_card=None,
    )
    with usage_consumer(settings, task["database"]) as consumer:
        tune_for_throughput()
        _report_ready()
        consumer.run(stop)
        counts = consumer.ingest.counts
        return {"charges": counts.charges, "batches": counts.batches, "failures": consumer.failures}


def project(task: Task) -> Report:
    """Keep all projections current like the product's projector process."""
    stop = stop_on_signals()
    runner = ProjectionRunner(task["database"], ALL_PROJECTIONS)
    tune_for_throughput()
    _report_ready()
    Thread(target=_stop_when, args=(stop, runner), daemon=True).start()
    runner.run()
    return {"position": runner.progress().position}


def grant(task: Task) -> Report:
    """Grant one credit per second to each organisation, in turn, like an API process."""
    stop = stop_on_signals()
    organisations = task["organisations"]
    grants = 0
    with open_ledger(task["database"]) as ledger:
        commands = credits_of(ledger).commands
        ledger.organisation(organisations[0])  # connect
        _report_ready()
        while not stop.wait(1 / len(organisations)):
            commands.grant(
                organisations[grants % len(organisations)],
                1,
                kind=GrantKind.ADMIN,
                reason="api",
                context=CommandContext(datetime.now(UTC), "u-benchmark", f"request-{grants}"),
            )
            grants += 1
    return {"grants": grants}


def ingest(task: Task) -> Report:
    """Ingest messages of equally busy organisations, and measure the memory."""
    traffic = Traffic(organisation_ids(task["organisations"]), alike=True)
    process = psutil.Process()
    peak_bytes = 0
    left = task["messages"]
    with closing(PostgresUsageStore(task["database"])) as store, open_ingest(store) as ingest:
        tune_for_throughput()
        _report_ready()
        while left:
            chunk = min(left, CHUNK)
            feed(ingest, traffic.take(chunk), task["batch_size"])
            left -= chunk
            peak_bytes = max(peak_bytes, process.memory_info().rss)
        charges = ingest.counts.charges
    return {"peak_rss_mb": peak_bytes / 1e6, "charges": charges, "credits": traffic.credits}


def _stop_when(stop: Event, runner: ProjectionRunner) -> None:
    stop.wait()
    runner.stop()


def _report_ready() -> None:
    print("at work", flush=True)


WORKERS: Final[Mapping[str, Callable[[Task], Report]]] = {
    "consume": consume,
    "project": project,
    "grant": grant,
    "ingest": ingest,
}

if __name__ == "__main__":
    log_to_stderr("WARNING")
    report = WORKERS[sys.argv[1]](msgspec.json.decode(sys.stdin.readline()))
    print(msgspec.json.encode(report).decode(), flush=True)
