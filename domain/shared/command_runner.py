"""The command runner: appends decisions to the log, on the latest state and at most once.

If another writer was first, the decision is made again on the newer state. The last attempt holds the write
lock, so a busy aggregate cannot starve a writer. With an `IdempotencyKey`, the first response is stored in
the same transaction and returned for every repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

import msgspec

from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.errors import DuplicateKey, LedgerError, StoreError, VersionConflict
from domain.shared.event_store import EventStore, IdempotencyKey

OPTIMISTIC_ATTEMPTS: Final = 3

T = TypeVar("T")


class RecordedResult(msgspec.Struct, Generic[T], frozen=True):
    """A command's result, its log position, and whether it repeats an earlier response."""

    value: T
    position: int
    repeated: bool


MultiAggregateDecision = Callable[[], tuple[Sequence[Aggregate], T]]
"""Loads aggregates in their current state and makes them decide. Returns them and the result."""


class CommandRunner:
    """Records decisions of aggregates. One command appends the decisions of several aggregates together."""

    def __init__(self, store: EventStore, save_snapshot: Callable[[Aggregate, int], None]) -> None:
        """Take the store and a function that keeps snapshots. Its arguments are an aggregate and its version
        before.
        """
        self.store = store
        self._save_snapshot = save_snapshot

    def run(
        self,
        decide: MultiAggregateDecision[T],
        idempotency_key: IdempotencyKey | None,
        result_type: type[T],
        *,
        on_version_conflict: type[LedgerError] | None = None,
        on_duplicate_key: type[LedgerError] = DuplicateKey,
    ) -> RecordedResult[T]:
        """Decide and append; repeat both after a version conflict.

        `result_type` is the type of the result of `decide`. `on_version_conflict` is raised if another writer
        was first and a second decision makes no sense. `on_duplicate_key` is raised if the ledger has a
        dedupe key already.

        Raises:
            IdempotencyConflict, StoreUnavailable, and whatever `decide` raises.
        """
        try:
            return self._run(decide, idempotency_key, result_type, on_version_conflict, on_duplicate_key)
        except LedgerError:
            # The same request may have been recorded in the meantime. That can be the reason for the refusal.
            first = self._stored_result(idempotency_key, result_type)
            if first is None:
                raise
            return first

    def _run(
        self,
        decide: MultiAggregateDecision[T],
        idempotency_key: IdempotencyKey | None,
        result_type: type[T],
        on_version_conflict: type[LedgerError] | None,
        on_duplicate_key: type[LedgerError],
    ) -> RecordedResult[T]:
        for _ in range(OPTIMISTIC_ATTEMPTS):
            try:
                return self._stored_result(idempotency_key, result_type) or self._decide_and_keep_snapshots(
                    decide, idempotency_key
                )
            except VersionConflict:
                if on_version_conflict is not None:
                    raise on_version_conflict() from None
            except DuplicateKey:
                raise on_duplicate_key() from None
        try:
            with self.store.exclusive():
                return (
                    self._stored_result(idempotency_key, result_type)
                    or self._decide(decide, idempotency_key)[0]
                )
        except DuplicateKey:
            raise on_duplicate_key() from None

    def _stored_result(
        self, idempotency_key: IdempotencyKey | None, result_type: type[T]
    ) -> RecordedResult[T] | None:
        first = self.store.find_stored_response(idempotency_key) if idempotency_key is not None else None
        if first is None:
            return None
        return RecordedResult(
            msgspec.json.decode(first.body, type=result_type), first.position, repeated=True
        )

    def _decide_and_keep_snapshots(
        self, decide: MultiAggregateDecision[T], idempotency_key: IdempotencyKey | None
    ) -> RecordedResult[T]:
        result, appended = self._decide(decide, idempotency_key)
        for aggregate, count in appended:
            with suppress(StoreError):  # the decision is recorded; a later write keeps the next snapshot
                self._save_snapshot(aggregate, aggregate.version - count)
        return result

    def _decide(
        self, decide: MultiAggregateDecision[T], idempotency_key: IdempotencyKey | None
    ) -> tuple[RecordedResult[T], list[tuple[Aggregate, int]]]:
        """Decide and append. Return the result, and each aggregate with the number of its new events."""
        aggregates, value = decide()
        events: list[EventEnvelope] = []
        appended = []
        for aggregate in aggregates:
            aggregate.check_invariants()
            collected = aggregate.collect_events()
            events += collected
            appended.append((aggregate, len(collected)))
        position = self.store.append(
            events, idempotency_key=idempotency_key, response=msgspec.json.encode(value)
        )
        return RecordedResult(value, position, repeated=False), appended
