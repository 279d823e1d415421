"""Parked messages: usage messages that wait until their organisation opens, with their original records."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from consumers.usage.batch import Batch, Message
from consumers.usage.ports import ParkedMessage, UsageTransaction
from consumers.usage.wire_format import Headers
from domain.credits.usage import UsageReport
from domain.shared.stream_keys import stream_id

_HEADERS: Final = list[tuple[str, bytes | None]]


class TakenByAnotherConsumer(Exception):
    """Another consumer has already handled the parked messages."""


class StoredRecord(NamedTuple):
    """The original Kafka record of a parked message."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def park(transaction: UsageTransaction, batch: Batch) -> None:
    """Park the messages of a batch whose organisations are not open."""
    transaction.park(
        [_parked_message(message, batch) for message in batch.parked],
        [stream_id(message.report.organisation_id) for message in batch.parked],
    )


def unpark(transaction: UsageTransaction, batch: Batch) -> None:
    """Delete the parked messages that a batch handles.

    Raises:
        TakenByAnotherConsumer: some of them are no longer parked.
    """
    if transaction.unpark(batch.unpark) != len(batch.unpark):
        raise TakenByAnotherConsumer


def report_of_parked(parked: ParkedMessage) -> UsageReport:
    """Return the usage report of a parked message."""
    return msgspec.json.decode(parked.report, type=UsageReport)


def record_of_parked(parked: ParkedMessage) -> StoredRecord:
    """Return the original Kafka record of a parked message."""
    return StoredRecord(
        parked.topic,
        parked.partition,
        parked.record_offset,
        parked.record_key,
        parked.record_value,
        msgspec.json.decode(parked.record_headers, type=_HEADERS),
    )


def _parked_message(message: Message, batch: Batch) -> ParkedMessage:
    record = message.record
    return ParkedMessage(
        message.key,
        message.report.organisation_id,
        msgspec.json.encode(message.report),
        record.key,
        record.value,
        msgspec.json.encode(list(record.headers)),
        record.topic,
        record.partition,
        record.offset,
        batch.now,
    )
