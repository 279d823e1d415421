"""The memory of recent dedupe keys: it chooses which keys of a batch are looked up before the write."""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Final

from consumers.usage.batch import Batch

RECENT_KEYS: Final = 200_000
WATCHED_BATCHES: Final = 1_000
"""After a repeat, keys are remembered for this many batches, because more repeats are likely."""
LOOKUP_BATCHES: Final = 50
"""After an unexpected repeat, all keys are looked up until this many batches in a row have no such repeat."""


class RecentKeys:
    """The keys of recent charges, to find likely repeats.

    This is only a hint: the unique index decides what is a repeat. Keys are kept only while repeats occur,
    because this costs about 5 % of the throughput.
    """

    def __init__(self) -> None:
        self._batches_to_watch = 0
        self._batches_to_look_up = 0
        # Two generations, so that the older one is dropped in one step without a cost per key.
        self._recent: set[bytes] = set()
        self._less_recent: set[bytes] = set()

    def keys_to_look_up(self, batch: Batch) -> Collection[bytes]:
        """Return the keys of a batch that may already be recorded. Call `looked_up` with the result."""
        if self._batches_to_look_up:
            return batch.by_key.keys()
        recent, less_recent = batch.common_keys(self._recent), batch.common_keys(self._less_recent)
        # A key with duplicates in this batch may already be recorded, which decides the valid content.
        return {*recent, *less_recent, *batch.duplicates}

    def looked_up(self, recorded: Set[bytes]) -> None:
        """Take in which of the keys are recorded. An unexpected one prolongs the look-up of all keys."""
        if self._batches_to_look_up:
            unexpected = recorded - self._recent - self._less_recent
            self._batches_to_look_up = LOOKUP_BATCHES if unexpected else self._batches_to_look_up - 1

    def look_up_all(self) -> None:
        """Look up all keys of the next batches, because the write found an unexpected repeat."""
        self._batches_to_look_up = LOOKUP_BATCHES

    def remember(self, batch: Batch) -> None:
        """Remember the keys of a committed batch while repeats occur, else forget all keys."""
        if batch.counts.repeats or batch.counts.conflicts:
            self._batches_to_watch = WATCHED_BATCHES
        elif self._batches_to_watch:
            self._batches_to_watch -= 1
        if not self._batches_to_watch:
            self._recent, self._less_recent = set(), set()
            return
        self._recent.update(batch.charge_keys)
        if len(self._recent) >= RECENT_KEYS // 2:
            self._recent, self._less_recent = set(), self._recent
