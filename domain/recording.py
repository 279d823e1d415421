"""How a decision gets into the log: on the newest state, and at most once.

When another writer was first, the decision is made again on the newer state; the last attempt decides under
the write lock, so that a busy aggregate never starves anyone. With a `Once` the first answer is stored in the
same transaction and given again to every repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

import msgspec

from domain.aggregate import Aggregate, Event
from domain.errors import LedgerError, RepeatedKey, StaleVersion, StoreError
from domain.ports import Once, Store

OPTIMISTIC_ATTEMPTS: Final = 3

T = TypeVar("T")


class Result(msgspec.Struct, Generic[T], frozen=True):
    """A command's answer, the log position it is true at, and whether it repeats an earlier answer."""

    recorded: T
    position: int
    repeated: bool


Decide = Callable[[], tuple[Sequence[Aggregate], T]]
"""Reads aggregates as they are now and lets them decide; returns them and the answer."""


class Recording:
    """Records decisions of aggregates: what several of them decide at once is in the log together."""

    def __init__(self, store: Store, keep_snapshot: Callable[[Aggregate, int], None]) -> None:
        """Take the store, and what keeps snapshots: it is given an aggregate and its version before."""
        self.store = store
        self._keep_snapshot = keep_snapshot

    def record(
        self,
        decide: Decide[T],
        once: Once | None,
        answer: type[T],
        *,
        on_stale: type[LedgerError] | None = None,
        on_repeated: type[LedgerError] = RepeatedKey,
    ) -> Result[T]:
        """Decide and append, as often as it takes.

        `answer` is the type that `decide` answers with. `on_stale` is what to raise where somebody else was
        first and deciding again makes no sense, `on_repeated` where a dedupe key is in the ledger.

        Raises:
            IdempotencyConflict, StoreUnavailable, and whatever `decide` raises.
        """
        try:
            return self._record(decide, once, answer, on_stale, on_repeated)
        except LedgerError:
            # This very request may have been recorded while it was decided again, and be why it is refused.
            first = self._first_answer(once, answer)
            if first is None:
                raise
            return first

    def _record(
        self,
        decide: Decide[T],
        once: Once | None,
        answer: type[T],
        on_stale: type[LedgerError] | None,
        on_repeated: type[LedgerError],
    ) -> Result[T]:
        for _ in range(OPTIMISTIC_ATTEMPTS):
            try:
                return self._first_answer(once, answer) or self._decide_and_keep_snapshots(decide, once)
            except StaleVersion:
                if on_stale is not None:
                    raise on_stale() from None
            except RepeatedKey:
                raise on_repeated() from None
        try:
            with self.store.exclusive():
                return self._first_answer(once, answer) or self._decide(decide, once)[0]
        except RepeatedKey:
            raise on_repeated() from None

    def _first_answer(self, once: Once | None, answer: type[T]) -> Result[T] | None:
        first = self.store.answer_to(once) if once is not None else None
        if first is None:
            return None
        return Result(msgspec.json.decode(first.body, type=answer), first.position, repeated=True)

    def _decide_and_keep_snapshots(self, decide: Decide[T], once: Once | None) -> Result[T]:
        result, appended = self._decide(decide, once)
        for aggregate, count in appended:
            with suppress(StoreError):  # the decision is recorded; a later write keeps the next one
                self._keep_snapshot(aggregate, aggregate.version - count)
        return result

    def _decide(self, decide: Decide[T], once: Once | None) -> tuple[Result[T], list[tuple[Aggregate, int]]]:
        """Decide and append; return the answer, and each aggregate with the number of its events."""
        aggregates, recorded = decide()
        events: list[Event] = []
        appended = []
        for aggregate in aggregates:
            aggregate.check_invariants()
            collected = aggregate.collect_events()
            events += collected
            appended.append((aggregate, len(collected)))
        position = self.store.append(events, once=once, answer=msgspec.json.encode(recorded))
        return Result(recorded, position, repeated=False), appended
