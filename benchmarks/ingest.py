"""The ingest of usage, from bytes to durable rows, through the product's own ingest and store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from benchmarks.checks import check_charges, check_position, fetch_row, log_end, must_equal
from benchmarks.environment import BenchmarkEnvironment, Sample
from benchmarks.feeding import feed, feed_all, open_ingest, start_position
from benchmarks.processes import ending_children, start_worker, stop_worker
from benchmarks.traffic import TOPIC, Traffic, UsageRecord, with_repeats
from infra.event_store.usage_store import PostgresUsageStore

REPEATED_SHARE: Final = 0.05
GRANTED_ORGANISATIONS: Final = 10


def ingest_fresh(bench_env: BenchmarkEnvironment, batch_size: int) -> Sample:
    """Measure the ingest of new messages into a new ledger."""
    records, credits_count = bench_env.usage
    with bench_env.database() as conninfo:
        start_position(conninfo)
        sample = _measure(bench_env, conninfo, records, batch_size)
        check_charges(conninfo, len(records), credits_count)
        check_position(conninfo, TOPIC, len(records))
    return sample


def ingest_into(bench_env: BenchmarkEnvironment, conninfo: str, traffic: Traffic, batch_size: int) -> Sample:
    """Measure the ingest of new messages into a ledger that already has events."""
    after, credits_before = log_end(conninfo), traffic.credits
    records = traffic.take(bench_env.sizes.ingest)
    sample = _measure(bench_env, conninfo, records, batch_size)
    check_charges(conninfo, len(records), traffic.credits - credits_before, after=after)
    check_position(conninfo, TOPIC, records[-1].offset + 1)
    return sample


def ingest_with_repeats_and_api(bench_env: BenchmarkEnvironment, batch_size: int) -> Sample:
    """Measure the ingest while the API grants credits; a share of the messages repeats recent ones."""
    new, credits_count = bench_env.usage
    records = with_repeats(new, REPEATED_SHARE)
    with bench_env.database() as conninfo:
        start_position(conninfo)
        organisations = bench_env.organisations[:GRANTED_ORGANISATIONS]
        granting = start_worker("grant", {"database": conninfo, "organisations": organisations})
        with ending_children(granting):
            sample = _measure(bench_env, conninfo, records, batch_size, repeats=len(records) - len(new))
            grants = int(stop_worker(granting)["grants"])
        check_charges(conninfo, len(new), credits_count)
        check_position(conninfo, TOPIC, len(records))
        _check_grants(conninfo, grants)
    return sample._replace(figures={"grants": grants})


def ingest_with_far_repeats(bench_env: BenchmarkEnvironment, batch_size: int) -> Sample:
    """Measure the ingest of messages, some of which repeat ones too old for the recent-key hint, as after a
    restart.
    """
    traffic = Traffic(bench_env.organisations)
    earlier = traffic.take(bench_env.sizes.ingest // 4)
    new = traffic.take(bench_env.sizes.ingest)
    mixed = with_repeats(new, REPEATED_SHARE, of=earlier)
    records = [record._replace(offset=len(earlier) + record.offset) for record in mixed]
    with bench_env.database() as conninfo:
        start_position(conninfo)
        feed_all(conninfo, earlier, batch_size)
        sample = _measure(bench_env, conninfo, records, batch_size, repeats=len(records) - len(new))
        check_charges(conninfo, len(earlier) + len(new), traffic.credits)
        check_position(conninfo, TOPIC, len(earlier) + len(records))
    return sample


def _measure(
    bench_env: BenchmarkEnvironment,
    conninfo: str,
    records: Sequence[UsageRecord],
    batch_size: int,
    repeats: int = 0,
) -> Sample:
    with closing(PostgresUsageStore(conninfo)) as store, open_ingest(store) as ingest:
        with bench_env.stopwatch() as watch:
            feed(ingest, records, batch_size)
        counts = ingest.counts
    must_equal("charges counted", counts.charges, len(records) - repeats)
    must_equal("repeats counted", counts.repeats, repeats)
    return watch.sample(len(records))


def _check_grants(conninfo: str, grants: int) -> None:
    """Check that the log has every grant that the API acknowledged, in addition to those of the openings."""
    query = "SELECT count(*) FROM ledger.events WHERE topic = 'credits_granted.v1' AND state LIKE %s"
    must_equal("grants in the log", fetch_row(conninfo, query, (b'%"api"%',)), (grants,))
