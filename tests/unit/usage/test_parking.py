"""What a parked message keeps of its record."""

from __future__ import annotations

from datetime import UTC, datetime

from consumers.usage.parking import record_of_parked
from consumers.usage.ports import ParkedMessage

NOW = datetime(2026, 11, 22, 9, 15, tzinfo=UTC)


def test_a_parked_record_is_unchanged() -> None:
    headers = b'[["a",null],["b","Yw=="]]'
    parked = ParkedMessage(b"k" * 16, "org", b"{}", None, b"v", headers, "topic", 3, 4, NOW)
    record = record_of_parked(parked)
    assert (record.topic, record.partition, record.offset) == ("topic", 3, 4)
    assert (record.key, record.value, record.headers) == (None, b"v", [("a", None), ("b", b"c")])
