"""The position to read a partition from, given the stored position and the broker's offsets."""

from __future__ import annotations

import pytest

from consumers.usage.positions import (
    DataLost,
    LogBounds,
    RestartLog,
    ResumeAt,
    StoredPosition,
    choose_start_offset,
    record_digest,
)
from tests.unit.usage.records import KafkaRecord

LOG = LogBounds("id-1", earliest=10, end=20)


def test_a_new_partition_is_read_from_its_beginning() -> None:
    assert choose_start_offset(None, LOG) == RestartLog("the partition is new")


@pytest.mark.parametrize("offset", [0, 10, 15, 20, 25])
def test_another_topic_id_is_another_log(offset: int) -> None:
    assert choose_start_offset(StoredPosition("id-0", offset, b"digest"), LOG) == RestartLog(
        "the topic was recreated"
    )


def test_a_position_after_the_end_is_of_another_log() -> None:
    assert choose_start_offset(StoredPosition("id-1", 21, None), LOG) == RestartLog(
        "the log ends before the position"
    )


def test_with_a_wrong_end_the_previous_record_decides() -> None:
    stored = StoredPosition("id-1", 21, b"digest")
    assert choose_start_offset(stored, LOG) == ResumeAt(21, b"digest", unproven=True)


@pytest.mark.parametrize(("offset", "checks"), [(10, False), (11, True), (19, True), (20, True)])
def test_within_the_log_it_resumes_and_checks_the_previous_record(offset: int, checks: bool) -> None:
    expected = ResumeAt(offset, b"digest" if checks else None)
    assert choose_start_offset(StoredPosition("id-1", offset, b"digest"), LOG) == expected


def test_without_a_digest_there_is_nothing_to_check() -> None:
    assert choose_start_offset(StoredPosition("id-1", 15, None), LOG) == ResumeAt(15, None)


@pytest.mark.parametrize("offset", [0, 9])
def test_records_deleted_by_retention_are_lost(offset: int) -> None:
    assert choose_start_offset(StoredPosition("id-1", offset, b"digest"), LOG) == DataLost(offset, 10)


def test_an_emptied_log_continues_if_everything_is_charged() -> None:
    empty = LogBounds("id-1", earliest=20, end=20)
    assert choose_start_offset(StoredPosition("id-1", 20, b"digest"), empty) == ResumeAt(20, None)
    assert choose_start_offset(StoredPosition("id-1", 19, b"digest"), empty) == DataLost(19, 20)


def test_a_new_empty_log() -> None:
    empty = LogBounds("id-1", earliest=0, end=0)
    assert choose_start_offset(StoredPosition("id-1", 0, None), empty) == ResumeAt(0, None)
    assert choose_start_offset(StoredPosition("id-1", 1, None), empty) == RestartLog(
        "the log ends before the position"
    )


def test_records_have_different_digests() -> None:
    records = [
        KafkaRecord(b"key", b"value", offset=1),
        KafkaRecord(b"key", b"value", offset=2),
        KafkaRecord(b"ke", b"yvalue", offset=1),
        KafkaRecord(b"key", b"", offset=1),
        KafkaRecord(b"key", None, offset=1),
        KafkaRecord(None, b"key", offset=1),
        KafkaRecord(b"", None, offset=1),
        KafkaRecord(None, None, offset=1),
    ]
    digests = {record_digest(record) for record in records}
    assert len(digests) == len(records)
    assert all(len(digest) == 16 for digest in digests)


def test_a_digest_depends_only_on_the_record() -> None:
    record = KafkaRecord(b"key", b"value", [("a", b"b")], partition=3, offset=7)
    assert record_digest(record) == record_digest(record._replace(headers=[], partition=4))
    # It is stored, so it must never change.
    assert record_digest(record).hex() == "8374b382a29971410e33634735ebcb29"
