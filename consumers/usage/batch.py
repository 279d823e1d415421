"""One batch of usage records on its way into the ledger: what is known of it so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from consumers.usage.ports import DeadLetterRecord, ParkedMessage, PositionMove
from consumers.usage.wire_format import Headers, InvalidUsageMessage, decode_usage
from domain.credits.organisation import Organisation
from domain.credits.usage import ChargeFingerprint, UsageReport
from domain.shared.aggregate import EventEnvelope
from domain.shared.stream_keys import dedupe_key


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
    `duplicates` what came later under the same identity: which body counts is known when all others were asked.
    """

    def __init__(self, moves: Sequence[PositionMove], now: datetime) -> None:
        self.moves = moves
        self.now = now
        self.by_key: dict[bytes, Message] = {}
        self.duplicates: dict[bytes, list[Message]] = {}
        self.unpark: list[bytes] = []
        self.dead_letters_to_send: list[DeadLetterRecord] = []
        self.acknowledgement_waits: list[Callable[[], None]] = []
        self.counts = Counts()
        self.forget_decisions()

    def forget_decisions(self) -> None:
        """Get ready to decide (again)."""
        self.organisations: dict[str, Organisation] = {}
        self.due_for_snapshot: list[Organisation] = []
        self.events: list[EventEnvelope] = []
        self.charge_keys: list[bytes] = []
        self.parked: list[Message] = []
        self.rows = b""

    def decode(self, records: Sequence[Record]) -> None:
        """Decode records; refuse what breaks the contract, set aside what repeats another one here."""
        by_key = self.by_key
        self.counts.records += len(records)
        for record in records:
            try:
                report = decode_usage(record.key, record.value, record.headers)
            except InvalidUsageMessage as refused:
                self.refuse(record, refused.reason, refused.field)
                continue
            key = dedupe_key(report.source, report.message_id)
            message = Message(key, report, record)
            first = by_key.setdefault(key, message)
            if first is not message:
                self.duplicates.setdefault(key, []).append(message)

    def messages(self, key: bytes) -> list[Message]:
        """Return all messages of an identity."""
        return [self.by_key[key], *self.duplicates.get(key, ())]

    def drop(self, key: bytes, organisation_id: str, charge_fingerprint: ChargeFingerprint) -> None:
        """Drop all messages of an identity that was there before: what was said then counts."""
        self.sort_repeats(self.remove(key), organisation_id, charge_fingerprint)

    def remove(self, key: bytes) -> list[Message]:
        """Return all messages of an identity, which are not of this batch any more."""
        messages = self.messages(key)
        del self.by_key[key]
        self.duplicates.pop(key, None)
        return messages

    def sort_repeats(
        self, messages: Sequence[Message], organisation_id: str, charge_fingerprint: ChargeFingerprint
    ) -> None:
        """Count messages as repeats of what was said first, or refuse those that say something else."""
        for message in messages:
            report = message.report
            if report.organisation_id == organisation_id and report.charge_fingerprint == charge_fingerprint:
                self.counts.repeats += 1
            else:
                self.counts.conflicts += 1
                self.refuse(message.record, "a message of this source and id says something else", "id")

    def drop_repeats(self) -> None:
        """Drop what repeats a message of this very batch."""
        for key, messages in self.duplicates.items():
            first = self.by_key[key].report
            self.sort_repeats(messages, first.organisation_id, first.charge_fingerprint)
        self.duplicates.clear()

    def refuse(self, record: Record, reason: str, field: str | None) -> None:
        """Set a record aside for the dead-letter topic."""
        self.counts.dead_letters += 1
        self.dead_letters_to_send.append(
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


def record_of_parked(parked: ParkedMessage, headers: Headers) -> StoredRecord:
    """Return the record that a parked message came in."""
    return StoredRecord(
        parked.topic,
        parked.partition,
        parked.record_offset,
        parked.record_key,
        parked.record_value,
        headers,
    )
