"""Sizes of the cases: large enough for stable figures, or just large enough for a functional check."""

from __future__ import annotations

from typing import Final, NamedTuple


class Sizes(NamedTuple):
    """Numbers of messages unless the name says otherwise."""

    rounds: int
    ingest: int
    library_charges: int
    end_to_end: int
    end_to_end_rounds: int
    small_ledger: int
    large_ledger: int
    long_history: int
    loads: int
    page_reads: int
    hold_cycles: int
    replay: int
    memory: int
    memory_organisations: int


FULL: Final = Sizes(
    rounds=5,
    ingest=300_000,
    library_charges=1_500,
    end_to_end=300_000,
    end_to_end_rounds=3,
    small_ledger=10_000,
    large_ledger=5_000_000,
    long_history=1_000_000,
    loads=300,
    page_reads=60,
    hold_cycles=1_000,
    replay=500_000,
    memory=5_000_000,
    memory_organisations=100_000,
)

QUICK: Final = Sizes(
    rounds=3,
    ingest=30_000,
    library_charges=250,
    end_to_end=30_000,
    end_to_end_rounds=1,
    small_ledger=10_000,
    large_ledger=300_000,
    long_history=100_000,
    loads=100,
    page_reads=15,
    hold_cycles=150,
    replay=60_000,
    memory=200_000,
    memory_organisations=20_000,
)

ORGANISATIONS: Final = 50
BATCH_SIZES: Final = (2_000, 500)
