"""Ports of the domain: the event store, idempotency keys, the clock. Each operation lists its errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from eventsourcing.persistence import EventStore as LibraryEventStore

from domain.shared.aggregate import A, Aggregate, EventEnvelope

EVENTS_CHANNEL: Final = "ledger_events"
"""The notification channel on which every append is announced, in the transaction that appends."""

Clock = Callable[[], datetime]
"""Returns the current time as an aware UTC datetime."""


class IdempotencyKey(msgspec.Struct, frozen=True):
    """Makes a request count once: a key within a scope, and a digest of the request."""

    scope: str
    key: str
    request_digest: bytes


class StoredResponse(msgspec.Struct, frozen=True):
    """The first response of a command: JSON, and the log position at which it is exact."""

    body: bytes
    position: int


class Command(msgspec.Struct, frozen=True):
    """A decision to record: `decide` loads aggregates, lets them decide, and returns them with the result.

    It may be called more than once; only the last call counts. Under an idempotency key, the result is stored
    as JSON.
    """

    decide: Callable[[], tuple[Sequence[Aggregate], Any]]
    idempotency_key: IdempotencyKey | None
    takes_snapshots: bool = True


class CommandOutcome(msgspec.Struct, frozen=True):
    """The result of a command and its log position; or the stored result (JSON) of the command it repeats."""

    value: Any
    stored: bytes | None
    position: int


class EventStore(LibraryEventStore[UUID], ABC):
    """Histories of aggregates, read and appended one decision at a time.

    It is the library's event store with what commands need, so one object serves both.
    """

    @abstractmethod
    def run(self, command: Command) -> CommandOutcome:
        """Record a command, in one transaction with the commands of other threads that wait at the same time.

        Inside `exclusive`, the command is recorded in that transaction instead.

        Raises:
            IdempotencyConflict: the key was used for another request.
            VersionConflict: the command starts a history that exists.
            DuplicateKey: an event's dedupe key is in the ledger.
            StoreUnavailable: the database cannot be reached, or the lock took too long.
            Whatever `decide` raises.
        """

    @abstractmethod
    def current(self, stream: UUID, load: Callable[[], A]) -> A:
        """Return an aggregate. Inside `run`, it has the events of earlier commands of that transaction."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the write lock. All reads and appends inside are one transaction.

        Raises:
            StoreUnavailable: the database cannot be reached, or the lock took too long.
        """

    @abstractmethod
    def append(
        self, events: Sequence[EventEnvelope], *, idempotency_key: IdempotencyKey | None, response: bytes
    ) -> int:
        """Append events of several aggregates, and the response of a request that must count once,
        atomically.

        Returns:
            The log position of the last event; without events, the current end of the log.

        Raises:
            VersionConflict: another writer appended to one of the aggregates first.
            DuplicateKey: an event's dedupe key, or the request's key, is already stored.
            StoreUnavailable: the database cannot be reached; the append may or may not have happened.
        """

    @abstractmethod
    def find_stored_response(self, idempotency_key: IdempotencyKey) -> StoredResponse | None:
        """Return the stored response of a request, if there is one.

        Raises:
            IdempotencyConflict: the key was used for another request.
        """

    @abstractmethod
    def get(
        self,
        originator_id: UUID,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Iterator[EventEnvelope]:
        """Return the events of a history after one version, up to another, at most `limit`."""

    @abstractmethod
    def log_end(self) -> int:
        """Return the position of the last event in the log."""

    @abstractmethod
    def find_by_dedupe_key(self, key: bytes) -> EventEnvelope | None:
        """Return the event that has a dedupe key."""
