"""Where a partition stands: a position belongs to a log, not to a topic name.

A topic can be deleted and made again, a broker can lose its disk, a cluster can be restored from an old
copy. So a position is stored with the topic's id and a digest of the last record it is past, and whoever
takes over a partition checks both before it reads on.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

import msgspec

from consumers.usage.batch import Record


class StoredPosition(msgspec.Struct, frozen=True):
    """The next offset to charge of one partition of one log."""

    topic_id: str
    next_offset: int
    last_record_digest: bytes | None


class PositionStore(Protocol):
    """Positions as the ledger's database has them."""

    def positions(self, topic: str) -> dict[int, StoredPosition]:
        """Return what is stored, by partition.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

    def start_log(
        self, topic: str, partition: int, topic_id: str, offset: int, replaces: StoredPosition | None
    ) -> None:
        """Store the beginning of a log, in place of the position seen before.

        Raises:
            CheckpointConflict: another consumer has moved it meanwhile.
            StoreUnavailable: the database cannot be reached.
        """


class LogBounds(msgspec.Struct, frozen=True):
    """A partition's log as the broker tells it: its topic's id, first offset, and offset after the last."""

    topic_id: str
    earliest: int
    end: int


class ResumeAt(msgspec.Struct, frozen=True):
    """Read on from an offset; `check_digest` is of the record just before it.

    `unproven`: the broker says the log ends earlier. Some brokers report their end too low, so the
    record just before the position decides: if it is there, so is our place.
    """

    offset: int
    check_digest: bytes | None = None
    unproven: bool = False


class RestartLog(msgspec.Struct, frozen=True):
    """It is another log: read it from its beginning. Repeats are dropped by their keys."""

    reason: str


class DataLost(msgspec.Struct, frozen=True):
    """Records between the position and the log's beginning are gone: never go on silently."""

    position: int
    earliest: int


def choose_start(stored: StoredPosition | None, log: LogBounds) -> ResumeAt | RestartLog | DataLost:
    """Decide where to read a partition from."""
    if stored is None:
        return RestartLog("the partition is new")
    if stored.topic_id != log.topic_id:
        return RestartLog("the topic was made anew")
    if stored.next_offset < log.earliest:
        return DataLost(stored.next_offset, log.earliest)
    if stored.next_offset > log.end:
        if stored.last_record_digest is None:
            return RestartLog("the log ends before the position")
        return ResumeAt(stored.next_offset, stored.last_record_digest, unproven=True)
    can_check = stored.last_record_digest is not None and stored.next_offset > log.earliest
    return ResumeAt(stored.next_offset, stored.last_record_digest if can_check else None)


def record_digest(record: Record) -> bytes:
    """Return the fingerprint of a record at its place."""
    digest = blake2b(record.offset.to_bytes(8, "big"), digest_size=16)
    for part in (record.key, record.value):
        digest.update(b"\0" if part is None else len(part).to_bytes(4, "big") + part)
    return digest.digest()
