"""How the auditor reads records: all ways to break the contract, and valid edge cases."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.auditor.verdicts import judge
from tests.auditor.wire import Malformed, Message, Record, in_log_order, read_message
from tests.e2e.malformed_messages import (
    MALFORMED_ENCODERS,
    MalformedEncoder,
    Parts,
    binary,
    structured,
)

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "0198f0c2-7a3b-7c4d-8e5f-0123456789ab",
    "source": "/photo-processing/worker-7",
    "type": "photo_processing.usage_reported.v1",
    "subject": "org-4711",
    "time": "2026-11-22T14:45:00.25+05:30",
    "data": {
        "run_id": "run-88",
        "usage_type": "photo_processing",
        "photos": 500,
        "ai_search": True,
        "event": {"id": 1042, "name": "Médaille d'or 🥇"},
        "user": {"id": "u-17"},
        "hold_id": None,
    },
}


def record(parts: Parts, offset: int = 0, partition: int = 0) -> Record:
    return Record(partition, offset, *parts)


def event(**changes: Any) -> dict[str, Any]:
    changed = copy.deepcopy(EVENT)
    changed["data"] |= changes.pop("data", {})
    return changed | changes


@pytest.mark.parametrize("encode", [structured, binary])
def test_both_modes_give_the_same_message(encode: Any) -> None:
    assert read_message(record(encode(EVENT))) == Message(
        "/photo-processing/worker-7",
        "0198f0c2-7a3b-7c4d-8e5f-0123456789ab",
        "org-4711",
        "run-88",
        "photo_processing",
        500,
        True,
        1042,
        "Médaille d'or 🥇",
        "u-17",
        None,
        datetime(2026, 11, 22, 9, 15, 0, 250_000, tzinfo=UTC),
    )


@pytest.mark.parametrize(("flaw", "field"), MALFORMED_ENCODERS.values(), ids=MALFORMED_ENCODERS)
def test_each_flaw_names_its_field(flaw: MalformedEncoder, field: str | None) -> None:
    with pytest.raises(Malformed) as refused:
        read_message(record(flaw(copy.deepcopy(EVENT))))
    assert refused.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "i" * 128},
        {"source": "s" * 256},
        {"subject": "o" * 64},
        {"time": "2000-01-01T00:00:00Z"},
        {"time": "2099-12-31T23:59:59Z"},
        {"data": {"photos": 0}},
        {"data": {"photos": 1_000_000}},
        {"data": {"event": {"id": 0, "name": ""}}},
        {"data": {"event": {"id": 2**53 - 1, "name": "n" * 256}}},
        {"data": {"user": None, "unknown": [1]}},
        {"data": {"hold_id": "h" * 128}},
    ],
)
def test_values_at_their_bounds_are_valid(changes: dict[str, Any]) -> None:
    assert read_message(record(structured(event(**changes))))


def test_a_record_of_full_size_is_read() -> None:
    key, value, headers = structured(EVENT)
    assert value is not None
    assert read_message(Record(0, 0, key, value + b" " * (65_536 - len(value)), headers))


def test_the_first_record_of_an_identity_wins() -> None:
    verdicts = judge(
        [
            record(structured(event(data={"photos": 6})), offset=2),
            record(structured(EVENT), offset=0),
            record(structured(event(time="2026-11-23T00:00:00Z")), offset=3),
            record(binary(EVENT), offset=1),
            record(binary(EVENT), offset=1),  # read twice
            record(structured(event(source="/another")), offset=4),
        ]
    )
    accepted = list(verdicts.accepted.values())
    assert [(each.message.source, each.place) for each in accepted] == [
        ("/photo-processing/worker-7", (0, 0)),
        ("/another", (0, 4)),
    ]
    assert {place: refusal.field for place, refusal in verdicts.refused.items()} == {(0, 2): "id"}
    assert verdicts.repeats == 2
    assert verdicts.ends == {0: 5}


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "org-4712"},
        {"data": {"run_id": "run-89"}},
        {"data": {"usage_type": "store_originals"}},
        {"data": {"photos": 501}},
        {"data": {"ai_search": False}},
        {"data": {"event": {"id": 1043, "name": "Médaille d'or 🥇"}}},
    ],
)
def test_a_changed_field_that_affects_the_charge_is_a_conflict(other: dict[str, Any]) -> None:
    verdicts = judge([record(structured(EVENT)), record(structured(event(**other)), offset=1)])
    assert list(verdicts.refused) == [(0, 1)]


def test_an_identity_in_two_partitions_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="two partitions"):
        judge([record(structured(EVENT)), record(structured(EVENT), partition=1)])


def test_the_order_of_the_log_is_by_partition_and_offset() -> None:
    records = [Record(1, 0, None, None), Record(0, 10, None, None), Record(0, 9, None, None)]
    assert [each.place for each in in_log_order(records)] == [(0, 9), (0, 10), (1, 0)]
