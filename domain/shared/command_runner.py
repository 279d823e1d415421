"""The command runner: records decisions in the log, on the latest state and at most once.

The event store records the commands of many threads in one transaction. With an `IdempotencyKey`, the first
response is stored in the same transaction and returned for every repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from domain.shared.aggregate import Aggregate
from domain.shared.errors import DuplicateKey, LedgerError, VersionConflict
from domain.shared.event_store import Command, EventStore, IdempotencyKey

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

    def __init__(self, store: EventStore, *, takes_snapshots: bool = True) -> None:
        self.store = store
        self._takes_snapshots = takes_snapshots

    def run(
        self,
        decide: MultiAggregateDecision[T],
        idempotency_key: IdempotencyKey | None,
        result_type: type[T],
        *,
        on_version_conflict: type[LedgerError] = VersionConflict,
        on_duplicate_key: type[LedgerError] = DuplicateKey,
    ) -> RecordedResult[T]:
        """Decide and append.

        `result_type` is the type of the result of `decide`. `on_version_conflict` is what to raise where the
        history exists already, `on_duplicate_key` where a dedupe key is in the ledger.

        Raises:
            IdempotencyConflict, StoreUnavailable, and the errors of `decide`.
        """
        try:
            outcome = self.store.run(Command(decide, idempotency_key, self._takes_snapshots))
        except VersionConflict:
            raise on_version_conflict() from None
        except DuplicateKey:
            raise on_duplicate_key() from None
        if outcome.stored is None:
            return RecordedResult(outcome.value, outcome.position, repeated=False)
        value = msgspec.json.decode(outcome.stored, type=result_type)
        return RecordedResult(value, outcome.position, repeated=True)
