"""One batch of usage records on its way into the ledger: what is known of it so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from consumers.messages import Headers, Refused, decode_usage
from domain.aggregate import Event
from domain.identity import dedupe_key
from domain.organisation import Organisation
from domain.ports import DeadLetterRecord, ParkedMessage, PositionMove
from domain.usage import Substance, UsageReport


class Record(Protocol):
    """A Kafka record, as any client hands it over."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Message(msgspec.Struct, frozen=True, gc=False):
    """A decoded record with the key of its identity."""

    key: bytes
    report: UsageReport
    record: Record


class Counts:
    """What became of the records since the process started."""

    __slots__ = ("batches", "charges", "conflicts", "dead_letters", "parked", "records", "repeats")

    def __init__(self) -> None:
        self.records = 0
        self.charges = 0
        self.repeats = 0
        self.conflicts = 0
        self.dead_letters = 0
        self.parked = 0
        self.batches = 0

    def add(self, other: Counts) -> None:
        """Add another's numbers to these."""
        for name in Counts.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Batch:
    """Records, the messages among them, and what was decided on them last.

    `by_key` holds the messages still to be charged, in order of arrival and each identity once, and
    `again` what came later under the same identity: which body counts is known when all others were asked.
    """

    def __init__(self, moves: Sequence[PositionMove], now: datetime) -> None:
        self.moves = moves
        self.now = now
        self.by_key: dict[bytes, Message] = {}
        self.again: dict[bytes, list[Message]] = {}
        self.unpark: list[bytes] = []
        self.letters: list[DeadLetterRecord] = []
        self.letters_sent: list[Callable[[], None]] = []
        self.counts = Counts()
        self.forget_decisions()

    def forget_decisions(self) -> None:
        """Get ready to decide (again)."""
        self.organisations: dict[str, Organisation] = {}
        self.due_for_snapshot: list[Organisation] = []
        self.events: list[Event] = []
        self.charge_keys: list[bytes] = []
        self.parked: list[Message] = []
        self.rows = b""

    def take(self, records: Sequence[Record]) -> None:
        """Decode records; refuse what breaks the contract, set aside what repeats another one here."""
        by_key = self.by_key
        self.counts.records += len(records)
        for record in records:
            try:
                report = decode_usage(record.key, record.value, record.headers)
            except Refused as refused:
                self.refuse(record, refused.reason, refused.field)
                continue
            key = dedupe_key(report.source, report.message_id)
            message = Message(key, report, record)
            first = by_key.setdefault(key, message)
            if first is not message:
                self.again.setdefault(key, []).append(message)

    def messages(self, key: bytes) -> list[Message]:
        """Return all messages of an identity."""
        return [self.by_key[key], *self.again.get(key, ())]

    def drop(self, key: bytes, organisation_id: str, substance: Substance) -> None:
        """Drop all messages of an identity that was there before: what was said then counts."""
        self.repeats(self.take_out(key), organisation_id, substance)

    def take_out(self, key: bytes) -> list[Message]:
        """Return all messages of an identity, which are not of this batch any more."""
        messages = self.messages(key)
        del self.by_key[key]
        self.again.pop(key, None)
        return messages

    def repeats(self, messages: Sequence[Message], organisation_id: str, substance: Substance) -> None:
        """Count messages as repeats of what was said first, or refuse those that say something else."""
        for message in messages:
            report = message.report
            if report.organisation_id == organisation_id and report.substance == substance:
                self.counts.repeats += 1
            else:
                self.counts.conflicts += 1
                self.refuse(message.record, "a message of this source and id says something else", "id")

    def drop_repeats(self) -> None:
        """Drop what repeats a message of this very batch."""
        for key, messages in self.again.items():
            first = self.by_key[key].report
            self.repeats(messages, first.organisation_id, first.substance)
        self.again.clear()

    def refuse(self, record: Record, reason: str, field: str | None) -> None:
        """Set a record aside for the dead-letter topic."""
        self.counts.dead_letters += 1
        self.letters.append(
            DeadLetterRecord(
                reason,
                field,
                record.topic,
                record.partition,
                record.offset,
                record.key,
                record.value,
                # No client sends a header without a value: an empty one stands for it.
                [(name, content or b"") for name, content in record.headers],
                self.now,
            )
        )


class StoredRecord(NamedTuple):
    """The Kafka record of a parked message, as it came."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def kept_record(parked: ParkedMessage, headers: Headers) -> StoredRecord:
    """Return the record that a parked message came in."""
    return StoredRecord(
        parked.topic,
        parked.partition,
        parked.record_offset,
        parked.record_key,
        parked.record_value,
        headers,
    )
