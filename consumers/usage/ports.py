"""What the usage consumer needs from outside: small protocols, with the errors each operation raises."""

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
    """A consumer's progress on a partition, as a compare-and-set of the stored position."""

    topic: str
    partition: int
    topic_id: str
    expected_offset: int
    next_offset: int
    last_record_digest: bytes


class ParkedMessage(msgspec.Struct, frozen=True):
    """A usage message that waits for its organisation to open, with its record as it came."""

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
    """One batch on its way into the ledger, opened under the write lock.

    Every method raises StoreUnavailable when the database is lost; the batch may or may not be in.
    """

    @property
    def log_end(self) -> int:
        """Position of the last event before this transaction."""

    @property
    def has_parked(self) -> bool:
        """Tell whether any message waits parked."""

    def parked(self, keys: Sequence[bytes]) -> Mapping[bytes, ParkedMessage]:
        """Return which of these keys wait for their organisation."""

    def streams_appended_after(self, position: int) -> set[UUID]:
        """Return the organisations that got events after a position."""

    def catch_up(self, organisations: Collection[Organisation]) -> None:
        """Bring organisations to the end of their histories."""

    def load(self, streams: Collection[UUID]) -> dict[UUID, Organisation]:
        """Return organisations as of this transaction; unknown ones are missing."""

    def park(self, messages: Sequence[ParkedMessage], streams: Sequence[UUID]) -> None:
        """Keep messages until their organisations open. A message parked before stays as it is."""

    def unpark(self, keys: Sequence[bytes]) -> int:
        """Forget parked messages and return how many there were."""

    def start_commit(
        self, events: Sequence[EventEnvelope], payload: bytes, snapshots: Sequence[EventEnvelope]
    ) -> None:
        """Send the rows of events, as `UsageStore.rows` made them, snapshots beside them, and the commit.

        Returns while the database works on it; `finish_commit` is next.
        """

    def finish_commit(self) -> int:
        """Wait for the commit and return the position of the last event in the log.

        Raises:
            DuplicateKey: a message is in the ledger already; nothing was written.
            VersionConflict: two writers broke the write lock's rule; nothing was written.
        """

    def rollback(self) -> None:
        """Give up before the commit: nothing was written."""


class UsageStore(Protocol):
    """The fast path of usage into the ledger, a batch at a time."""

    def log_end(self) -> int:
        """Return the position of the last event in the log."""

    def load(self, streams: Collection[UUID]) -> dict[UUID, Organisation]:
        """Return organisations at the end of their histories; unknown ones are missing.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

    def recorded(self, keys: Sequence[bytes]) -> dict[bytes, tuple[UUID, UsageCharged]]:
        """Return what is in the ledger already under these keys: stream and charge.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

    def parked(self, keys: Sequence[bytes]) -> Mapping[bytes, ParkedMessage]:
        """Return which of these keys wait for their organisation.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

    def rows(self, events: Sequence[EventEnvelope], charge_keys: Sequence[bytes]) -> bytes:
        """Return events as the payload that `UsageTransaction.start_commit` sends; needs no database.

        `charge_keys` are the dedupe keys of the charges among them, in the same order.
        """

    def parked_with_open_organisation(self, limit: int) -> Sequence[ParkedMessage]:
        """Return parked messages whose organisation has opened since, oldest first."""

    def parked_before(self, moment: datetime, limit: int) -> Sequence[ParkedMessage]:
        """Return messages parked before a moment, oldest first."""

    def begin(self, moves: Sequence[PositionMove]) -> UsageTransaction:
        """Open a transaction, move the positions and take the write lock.

        Raises:
            CheckpointConflict: a stored position is not the expected one.
            StoreUnavailable: the database cannot be reached.
        """


class DeadLetterRecord(msgspec.Struct, frozen=True):
    """A record that cannot be charged: as it came, with why and where from."""

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
    """Where records go that cannot be charged."""

    def send(self, letters: Sequence[DeadLetterRecord]) -> Callable[[], None]:
        """Start sending; the returned function waits until every letter is safe.

        Raises (from the returned function):
            DeadLettersUnavailable: the broker did not take them in time.
        """
