"""Processing of a batch before any database access."""

from __future__ import annotations

from datetime import UTC, datetime

from consumers.usage.batch import Batch, Counts
from tests.unit.usage.records import KafkaRecord, usage_record

NOW = datetime(2026, 11, 22, 9, 15, tzinfo=UTC)


def take(*records: KafkaRecord) -> Batch:
    batch = Batch((), NOW)
    batch.decode([record._replace(offset=number) for number, record in enumerate(records)])
    return batch


def charged(batch: Batch) -> list[int]:
    return [message.record.offset for message in batch.by_key.values()]


def refused(batch: Batch) -> list[int]:
    return [letter.record_offset for letter in batch.dead_letters_to_send]


def test_messages_keep_their_order_and_refused_records_are_dead_letters() -> None:
    bad = KafkaRecord(b"key", b"not JSON", [("null", None), ("a", b"1")])
    batch = take(usage_record("b"), bad, usage_record("a", "org-2"))
    assert charged(batch) == [0, 2]
    (letter,) = batch.dead_letters_to_send
    assert (letter.record_key, letter.record_value, letter.record_offset) == (b"key", b"not JSON", 1)
    assert letter.record_headers == [("null", b""), ("a", b"1")]
    assert (letter.field, letter.rejected_at) == (None, NOW)
    assert (batch.counts.records, batch.counts.dead_letters) == (3, 1)


def test_the_first_of_an_identity_counts() -> None:
    batch = take(usage_record("a"), usage_record("b"), usage_record("a"), usage_record("a", photos=2))
    assert charged(batch) == [0, 1]
    batch.drop_repeats()
    assert refused(batch) == [3]
    assert (batch.counts.repeats, batch.counts.conflicts) == (1, 1)
    batch.drop_repeats()
    assert (batch.counts.repeats, batch.counts.conflicts) == (1, 1)


def test_an_earlier_message_counts_more() -> None:
    batch = take(usage_record("a", photos=2), usage_record("a", photos=1), usage_record("b"))
    (key, _), (_, other) = batch.by_key.items()
    earlier = take(usage_record("a", photos=1)).by_key[key]
    batch.drop(key, earlier.report.organisation_id, earlier.report.charge_fingerprint)
    batch.drop_repeats()
    assert list(batch.by_key.values()) == [other]
    assert refused(batch) == [0]
    assert (batch.counts.repeats, batch.counts.conflicts) == (1, 1)


def test_counts_add_up() -> None:
    total, one = Counts(), Counts()
    one.charges, one.repeats = 3, 1
    total.add(one)
    total.add(one)
    assert (total.charges, total.repeats, total.conflicts) == (6, 2, 0)
