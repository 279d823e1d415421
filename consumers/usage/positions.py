"""Positions of partitions. A position belongs to a topic's id, not to its name.

A topic can be deleted and recreated, a broker can lose its disk, a cluster can be restored from an old
backup. So a position is stored with the topic's id and a digest of the last charged record. A consumer
verifies both before it resumes a partition.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

import msgspec

from consumers.usage.batch import Record


class StoredPosition(msgspec.Struct, frozen=True):
    """The next offset to read in a partition, with the id of the topic that it belongs to."""

    topic_id: str
    next_offset: int
    last_record_digest: bytes | None


class PositionStore(Protocol):
    """The stored positions in the ledger's database."""

    def positions(self, topic: str) -> dict[int, StoredPosition]:
        """Return the stored positions, by partition.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

    def start_log(
        self, topic: str, partition: int, topic_id: str, offset: int, replaces: StoredPosition | None
    ) -> None:
        """Store the start of a partition of a new topic id, replacing the expected position.

        Raises:
            CheckpointConflict: another consumer has moved the position.
            StoreUnavailable: the database cannot be reached.
        """


class LogBounds(msgspec.Struct, frozen=True):
    """The broker's view of a partition's log: topic id, first offset, and offset after the last record."""

    topic_id: str
    earliest: int
    end: int


class ResumeAt(msgspec.Struct, frozen=True):
    """Resume at an offset. `check_digest` is the digest of the record before it.

    `unproven`: the broker reports an earlier end of the log. Some brokers report the end too low, so the
    record before the position decides: if it exists, the position is valid.
    """

    offset: int
    check_digest: bytes | None = None
    unproven: bool = False


class RestartLog(msgspec.Struct, frozen=True):
    """It is a different log: read it from its beginning. The dedupe keys remove repeats."""

    reason: str


class DataLost(msgspec.Struct, frozen=True):
    """Records between the position and the beginning of the log are lost. The partition must stop."""

    position: int
    earliest: int


def choose_start_offset(stored: StoredPosition | None, log: LogBounds) -> ResumeAt | RestartLog | DataLost:
    """Decide at which offset a partition starts."""
    if stored is None:
        return RestartLog("the partition is new")
    if stored.topic_id != log.topic_id:
        return RestartLog("the topic was recreated")
    if stored.next_offset < log.earliest:
        return DataLost(stored.next_offset, log.earliest)
    if stored.next_offset > log.end:
        if stored.last_record_digest is None:
            return RestartLog("the log ends before the position")
        return ResumeAt(stored.next_offset, stored.last_record_digest, unproven=True)
    can_check = stored.last_record_digest is not None and stored.next_offset > log.earliest
    return ResumeAt(stored.next_offset, stored.last_record_digest if can_check else None)


def record_digest(record: Record) -> bytes:
    """Return a digest of a record's offset, key and value."""
    digest = blake2b(record.offset.to_bytes(8, "big"), digest_size=16)
    for part in (record.key, record.value):
        digest.update(b"\0" if part is None else len(part).to_bytes(4, "big") + part)
    return digest.digest()
