"""All benchmark cases, in the order of a round. Cases that are compared are neighbours."""

from __future__ import annotations

from functools import partial

from benchmarks.end_to_end import EndToEnd
from benchmarks.history import LongHistory, PastLedger
from benchmarks.holds import holds, holds_by_hand
from benchmarks.ingest import ingest_fresh, ingest_with_far_repeats, ingest_with_repeats_and_api
from benchmarks.library import library
from benchmarks.memory import consumer_memory
from benchmarks.reads import PageReads
from benchmarks.replay import ReplayedLedger
from benchmarks.runner import Case
from benchmarks.sizes import Sizes
from benchmarks.storage_limit import StorageLimit


def all_cases(sizes: Sizes) -> list[Case]:
    """Return new cases. Each case stores what it prepares."""
    limit_2000, limit_500 = StorageLimit(2_000), StorageLimit(500)
    small = PastLedger("small_ledger", sizes.small_ledger)
    large = LongHistory("large_ledger", sizes.large_ledger, sizes.long_history)
    replayed = ReplayedLedger()
    end_to_end = EndToEnd()
    reads = PageReads()
    return [
        Case(
            "limit_2000",
            "limit: COPY of prebuilt rows, 2,000 a commit",
            limit_2000.measure,
            limit_2000.set_up,
        ),
        Case(
            "ingest_2000",
            "ingest: bytes to durable rows, 2,000 a commit",
            partial(ingest_fresh, batch_size=2_000),
        ),
        Case(
            "ingest_repeats_api",
            "ingest, 5 % recent repeats, API writing at the same time",
            partial(ingest_with_repeats_and_api, batch_size=2_000),
        ),
        Case(
            "ingest_far_repeats",
            "ingest, 5 % repeats of long ago",
            partial(ingest_with_far_repeats, batch_size=2_000),
        ),
        Case("limit_500", "limit, 500 a commit", limit_500.measure, limit_500.set_up),
        Case("ingest_500", "ingest, 500 a commit", partial(ingest_fresh, batch_size=500)),
        Case("library", "the library as documented: one save a charge", library),
        Case(
            "ingest_small_ledger",
            f"ingest into a ledger of {sizes.small_ledger:,} charges",
            small.ingest,
            small.set_up,
        ),
        Case(
            "ingest_large_ledger",
            f"ingest into a ledger of {sizes.large_ledger:,} charges",
            large.ingest,
            large.set_up,
        ),
        Case(
            "load",
            f"load organisations of {sizes.long_history:,} and of 10 events",
            large.load,
            large.set_up,
        ),
        Case(
            "reads",
            f"pages of {sizes.large_ledger:,} and of {sizes.small_ledger:,} transactions",
            reads.measure,
            reads.set_up,
            rounds=1,
        ),
        *(
            case
            for threads in (1, 8, 64)
            for case in (
                Case(
                    f"holds_by_hand_{threads}",
                    f"holds by hand-written SQL, {threads} threads",
                    partial(holds_by_hand, threads=threads),
                ),
                Case(f"holds_{threads}", f"holds, {threads} threads", partial(holds, threads=threads)),
            )
        ),
        Case("holds_one", "holds of one organisation, 8 threads", partial(holds, threads=8, organisations=1)),
        Case("replay", "replay of the whole log", replayed.measure, replayed.set_up),
        Case(
            "end_to_end",
            "end to end: topic to projections",
            end_to_end.measure,
            end_to_end.set_up,
            rounds=sizes.end_to_end_rounds,
        ),
        Case(
            "memory",
            f"ingest of {sizes.memory:,} over {sizes.memory_organisations:,} organisations",
            consumer_memory,
            rounds=1,
        ),
    ]
