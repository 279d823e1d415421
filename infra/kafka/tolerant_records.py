"""Lets kafka-python read records whose header names are not UTF-8.

Kafka defines header names as UTF-8, but brokers do not check them. kafka-python refuses such a record and all
records after it in the batch. One producer's mistake must not stop a partition. So every non-ASCII byte of
such a name is read as a question mark. Keys and values do not change.
"""

from __future__ import annotations

from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint


def accept_any_header_name() -> None:
    """Make every consumer of this process read such records."""
    memory_records.DefaultRecordBatch = TolerantRecordBatch


class TolerantRecordBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch of records in format 2 that accepts any header name."""

    def _read_msg(self) -> Any:
        while True:
            try:
                return super()._read_msg()
            except UnicodeDecodeError:
                self._escape_header_names()

    def _escape_header_names(self) -> None:
        """Rewrite the header names of the current record. Each name keeps its length in bytes."""
        buffer: bytearray = self._buffer
        position = self._skip_to_headers(buffer)
        count, position = decode_varint(buffer, position)
        for _ in range(count):
            length, position = decode_varint(buffer, position)
            name = bytes(buffer[position : position + length])
            buffer[position : position + length] = _as_ascii(name)
            position += length
            length, position = decode_varint(buffer, position)
            position += max(length, 0)

    def _skip_to_headers(self, buffer: bytearray) -> int:
        position = int(self._pos)
        for _ in range(4):  # length, attributes, timestamp delta, offset delta
            _, position = decode_varint(buffer, position)
        for _ in range(2):  # key, value
            length, position = decode_varint(buffer, position)
            position += max(length, 0)
        return position


def _as_ascii(name: bytes) -> bytes:
    try:
        name.decode()
    except UnicodeDecodeError:
        return bytes(byte if byte < 0x80 else ord("?") for byte in name)
    return name
