"""One batch of usage records: its decoded messages, and the decisions on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from datetime import datetime
from typing import Protocol

import msgspec

from consumers.usage.ports import DeadLetterRecord, PositionMove
from consumers.usage.wire_format import Headers, InvalidUsageMessage, decode_usage
from domain.credits.organisation import Organisation
from domain.credits.usage import ChargeFingerprint, UsageReport
from domain.shared.aggregate import EventEnvelope
from domain.shared.stream_keys import dedupe_key


class Record(Protocol):
    """A Kafka record of any client."""

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
    """A decoded record with its dedupe key."""

    key: bytes
    report: UsageReport
    record: Record


class Counts:
    """Counts of records by outcome, since the process started."""

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
        """Add other counts to these."""
        for name in Counts.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Batch:
    """Records, their messages, and the latest decisions on them.

    `by_key` has the messages to charge, in order of arrival, one per dedupe key. `duplicates` has later
    messages with the same key. Which content counts is known only after the lookup of earlier messages.
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
        """Discard all decisions, so that the batch can be decided again."""
        self.organisations: dict[str, Organisation] = {}
        self.snapshots: list[EventEnvelope] = []
        self.events: list[EventEnvelope] = []
        self.charge_keys: list[bytes] = []
        self.parked: list[Message] = []
        self.rows = b""

    def decode(self, records: Sequence[Record]) -> None:
        """Decode records. Refuses invalid ones, and moves repeats within the batch to `duplicates`."""
        by_key = self.by_key
        self.counts.records += len(records)
        for record in records:
            try:
                report = decode_usage(record.key, record.value, record.headers)
            except InvalidUsageMessage as error:
                self.refuse(record, error.reason, error.field)
                continue
            key = dedupe_key(report.source, report.message_id)
            message = Message(key, report, record)
            first = by_key.setdefault(key, message)
            if first is not message:
                self.duplicates.setdefault(key, []).append(message)

    def messages(self, key: bytes) -> list[Message]:
        """Return all messages of a dedupe key."""
        return [self.by_key[key], *self.duplicates.get(key, ())]

    def common_keys(self, keys: Set[bytes]) -> Set[bytes]:
        """Return which of these keys are in the batch. There are nearly always none: that check is cheap."""
        batch_keys = self.by_key.keys()
        return set() if batch_keys.isdisjoint(keys) else batch_keys & keys

    def drop(self, key: bytes, organisation_id: str, charge_fingerprint: ChargeFingerprint) -> None:
        """Remove all messages of a dedupe key that was recorded earlier. The recorded content counts."""
        self.count_or_refuse_repeats(self.remove(key), organisation_id, charge_fingerprint)

    def remove(self, key: bytes) -> list[Message]:
        """Remove all messages of a dedupe key from the batch, and return them."""
        messages = self.messages(key)
        del self.by_key[key]
        self.duplicates.pop(key, None)
        return messages

    def count_or_refuse_repeats(
        self, messages: Sequence[Message], organisation_id: str, charge_fingerprint: ChargeFingerprint
    ) -> None:
        """Count messages with the same content as repeats, and refuse messages with different content."""
        for message in messages:
            report = message.report
            if report.organisation_id == organisation_id and report.charge_fingerprint == charge_fingerprint:
                self.counts.repeats += 1
            else:
                self.counts.conflicts += 1
                self.refuse(message.record, "a message with this source and id has different content", "id")

    def drop_repeats(self) -> None:
        """Remove the repeats within the batch."""
        for key, messages in self.duplicates.items():
            first = self.by_key[key].report
            self.count_or_refuse_repeats(messages, first.organisation_id, first.charge_fingerprint)
        self.duplicates.clear()

    def refuse(self, record: Record, reason: str, field: str | None) -> None:
        """Add a record to the dead letters to send."""
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
                # Clients cannot send a header without a value, so it becomes empty.
                [(name, content or b"") for name, content in record.headers],
                self.now,
            )
        )
