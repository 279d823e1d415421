"""The ports of the usage consumer: small protocols, with the errors of each operation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from domain.credits.events import UsageCharged
from domain.credits.organisation import Organisation
from domain.shared.aggregate import EventEnvelope


class PositionMove(msgspec.Struct, frozen=True):
    """A move of a partition's stored position, as a compare-and-set."""

    topic: str
    partition: int
    topic_id: str
    expected_offset: int
    next_offset: int
    last_record_digest: bytes


class ParkedMessage(msgspec.Struct, frozen=True):
    """A usage message that waits until its organisation opens, with its original record."""

    dedupe_key: bytes
    organisation_id: str
    report: bytes
    record_key: bytes | None
    record_value: bytes | None
    record_headers: bytes
    topic: str
    partition: int
    record_offset: int
    parked_at: datetime


class UsageTransaction(Protocol):
    """The transaction of one batch, under the write lock.

    Every method raises StoreUnavailable if the database connection is lost. The batch may or may not be
    committed.
    """

    @property
    def log_end(self) -> int:
        """The log position of the last event before this transaction."""

    @property
    def has_parked(self) -> bool:
        """Whether any message is parked."""

    def parked(self, keys: Sequence[bytes]) -> Mapping[bytes, ParkedMessage]:
        """Return the parked messages with these keys."""

    def streams_appended_after(self, position: int) -> set[UUID]:
        """Return the streams of organisations with events after a log position."""

    def catch_up(self, organisations: Collection[Organisation]) -> None:
        """Apply the newer events of organisations to them."""

    def load(self, streams: Collection[UUID]) -> dict[UUID, Organisation]:
        """Return organisations as of this transaction. Unopened ones are missing."""

    def park(self, messages: Sequence[ParkedMessage], streams: Sequence[UUID]) -> None:
        """Park messages until their organisations open. A message that is already parked does not change."""

    def unpark(self, keys: Sequence[bytes]) -> int:
        """Delete parked messages, and return the number of deleted ones."""

    def start_commit(
        self, events: Sequence[EventEnvelope], payload: bytes, snapshots: Sequence[EventEnvelope]
    ) -> None:
        """Send the rows of events (a result of `UsageStore.rows`), the snapshots, and the commit.

        Returns before the database has finished. Call `finish_commit` next.
        """

    def finish_commit(self) -> int:
        """Wait for the commit, and return the log position of the last event.

        Raises:
            DuplicateKey: a message is already recorded. Nothing was written.
            VersionConflict: another writer ignored the write lock. Nothing was written.
        """

    def rollback(self) -> None:
        """Roll back before the commit. Nothing was written."""


class UsageStore(Protocol):
    """The store of the usage ingest: it writes one batch at a time."""

    def log_end(self) -> int:
        """Return the log position of the last event."""

    def load(self, streams: Collection[UUID]) -> dict[UUID, Organisation]:
        """Return organisations with all their events applied. Unopened ones are missing.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

    def recorded(self, keys: Sequence[bytes]) -> dict[bytes, tuple[UUID, UsageCharged]]:
        """Return the stream and the charge of each key that is already recorded.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

    def parked(self, keys: Sequence[bytes]) -> Mapping[bytes, ParkedMessage]:
        """Return which of these keys wait for their organisation.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

    def rows(self, events: Sequence[EventEnvelope], charge_keys: Sequence[bytes]) -> bytes:
        """Return events encoded as the payload of `UsageTransaction.start_commit`. Needs no database.

        `charge_keys` are the dedupe keys of the charges among them, in the same order.
        """

    def parked_with_open_organisation(self, limit: int) -> Sequence[ParkedMessage]:
        """Return parked messages whose organisation is now open, oldest first."""

    def parked_before(self, moment: datetime, limit: int) -> Sequence[ParkedMessage]:
        """Return messages that were parked before a time, oldest first."""

    def begin(self, moves: Sequence[PositionMove]) -> UsageTransaction:
        """Open a transaction, move the positions and take the write lock.

        Raises:
            CheckpointConflict: a stored position is not the expected one.
            StoreUnavailable: the database cannot be reached.
        """


class DeadLetterRecord(msgspec.Struct, frozen=True):
    """A refused record, unchanged, with its reason and its origin."""

    reason: str
    field: str | None
    topic: str
    partition: int
    record_offset: int
    record_key: bytes | None
    record_value: bytes | None
    record_headers: Sequence[tuple[str, bytes]]
    rejected_at: datetime


class DeadLetters(Protocol):
    """The destination of refused records."""

    def send(self, letters: Sequence[DeadLetterRecord]) -> Callable[[], None]:
        """Start sending. The returned function waits until all records are acknowledged.

        Raises (from the returned function):
            DeadLettersUnavailable: the broker did not accept them in time.
        """
