"""Memory of a consumer that has charged very many organisations."""

from __future__ import annotations

from typing import Final

from benchmarks.checks import check_charges, check_position
from benchmarks.environment import MIGRATED, BenchmarkEnvironment, Sample
from benchmarks.feeding import start_position
from benchmarks.organisations import open_organisations
from benchmarks.processes import ending_children, finish_worker, start_worker
from benchmarks.traffic import TOPIC, organisation_ids

_TIMEOUT_S: Final = 900.0


def consumer_memory(bench_env: BenchmarkEnvironment) -> Sample:
    """Measure the peak resident size of an ingesting process, and its throughput."""
    messages, organisations = bench_env.sizes.memory, bench_env.sizes.memory_organisations
    with bench_env.database(MIGRATED) as conninfo:
        open_organisations(conninfo, organisation_ids(organisations))
        start_position(conninfo)
        task = {
            "database": conninfo,
            "messages": messages,
            "organisations": organisations,
            "batch_size": 2_000,
        }
        with bench_env.stopwatch() as watch:
            worker = start_worker("ingest", task)
            with ending_children(worker):
                report = finish_worker(worker, _TIMEOUT_S)
        check_charges(conninfo, messages, report["credits"])
        check_position(conninfo, TOPIC, messages)
    return watch.sample(messages, consumer_rss_mb=report["peak_rss_mb"])
