"""The wire contract of usage messages: accepted messages, refused messages, and the texts of refusals."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumers.usage.wire_format import (
    REASON_MAX_LENGTH,
    VALUE_MAX_BYTES,
    InvalidUsageMessage,
    decode_usage,
)
from domain.credits.usage import UsageReport
from domain.pricing.rate_card import UsageType
from tests.unit.usage.records import (
    ORGANISATION,
    Header,
    KafkaRecord,
    as_json,
    binary,
    structured,
    usage_event,
    without,
)
from tests.usage_reports import usage_report

EXAMPLES = Path(__file__).parent / "usage_messages"
STRUCTURED = EXAMPLES / "structured.json"

EXPECTED = usage_report(
    source="/photo-processing/worker-7",
    message_id="0198f0c2-7c1e-7d3a-9c55-1f2e3d4c5b6a",
    organisation_id=ORGANISATION,
    run_id="run-88",
    usage_type=UsageType.PHOTO_PROCESSING,
    photos=500,
    ai_search=True,
    event_id=1042,
    event_name="City Marathon 2026",
    user="u-17",
    hold_id=None,
    occurred_at=datetime(2026, 11, 22, 9, 15, tzinfo=UTC),
)


def decode(record: KafkaRecord) -> UsageReport:
    return decode_usage(record.key, record.value, record.headers)  # type: ignore[arg-type]


def refusal(record: KafkaRecord) -> tuple[str | None, str]:
    with pytest.raises(InvalidUsageMessage) as refused:
        decode(record)
    return refused.value.field, refused.value.reason


def raw(old: str, new: str) -> KafkaRecord:
    """The structured example with one replacement in its text."""
    text = STRUCTURED.read_text(encoding="utf-8")
    assert text.count(old) == 1
    return KafkaRecord(ORGANISATION.encode(), text.replace(old, new).encode())


# ------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", b"application/cloudevents+json")],
        [("content-type", b"application/cloudevents+json; charset=UTF-8")],
        [("Content-Type", b"Application/CloudEvents+JSON")],
        [("content-type", b"application/json")],
        [("content-type", None)],
        [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("x", b"\xff")],
        # The content type decides: ce_ headers that a proxy copied are ignored.
        [("content-type", b"application/cloudevents+json"), ("ce_specversion", b"1.0"), ("ce_id", b"other")],
    ],
)
def test_a_structured_event_is_accepted(headers: list[Header]) -> None:
    record = KafkaRecord(ORGANISATION.encode(), STRUCTURED.read_bytes(), headers)
    assert decode(record) == EXPECTED


@pytest.mark.parametrize(
    "changed",
    [
        [],
        [("content-type", b"application/json")],
        [("content-type", b"application/json; charset=utf-8")],
        [("Content-Type", b"APPLICATION/JSON")],
        [("content-type", None)],
        [("ce_traceparent", b"00-4bf92f35-00f067aa-01"), ("x-retry", None), ("x-raw", b"\xff\xfe")],
    ],
)
@pytest.mark.parametrize("spell", [str.lower, str.upper])
def test_a_binary_event_is_accepted(changed: list[Header], spell: Any) -> None:
    headers: list[Header] = [
        (spell(f"ce_{name}"), content.encode()) for name, content in usage_event().items() if name != "data"
    ]
    data = (EXAMPLES / "binary_data.json").read_bytes()
    assert decode(KafkaRecord(ORGANISATION.encode(), data, headers + changed)) == EXPECTED


def test_extensions_and_unknown_fields_are_ignored() -> None:
    value = (EXAMPLES / "structured_with_extensions.json").read_bytes()
    assert decode(KafkaRecord(ORGANISATION.encode(), value)) == usage_report(
        organisation_id=ORGANISATION,
        source="urn:pipeline:eu-1",
        message_id="batch-7/4",
        run_id="run-88",
        usage_type=UsageType.WATERMARK_REPROCESS,
        photos=0,
        ai_search=False,
        event_id=0,
        event_name="",
        user=None,
        hold_id="hold-1",
        occurred_at=datetime(2026, 11, 22, 9, 15, 0, 250_000, tzinfo=UTC),
    )


@pytest.mark.parametrize("field", ["user", "hold_id"])
def test_user_and_hold_may_be_left_out(field: str) -> None:
    assert getattr(decode(structured(without(f"data.{field}"))).usage, field) is None


@pytest.mark.parametrize("usage_type", list(UsageType))
def test_every_usage_type_is_accepted(usage_type: UsageType) -> None:
    event = usage_event({"data.usage_type": usage_type.value})
    assert decode(structured(event)).usage.usage_type is usage_type
    assert decode(binary(event)).usage.usage_type is usage_type


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "x" * 128),
        ("id", "é" * 128),
        ("source", "s" * 256),
        ("subject", "o" * 64),
        ("subject", "組織-1"),
        ("data.run_id", "r"),
        ("data.run_id", "r" * 128),
        ("data.photos", 0),
        ("data.photos", 1_000_000),
        ("data.event.id", 2**53 - 1),
        ("data.event.name", "n" * 256),
        ("data.event.name", 'quotes " and \\ backslashes, 🏃 and ünïcode'),
        ("data.user.id", "u" * 128),
        ("data.hold_id", "h" * 128),
    ],
)
def test_values_at_their_bounds_are_accepted_in_both_modes(path: str, value: object) -> None:
    event = usage_event({path: value})
    assert decode(structured(event)) == decode(binary(event))


@pytest.mark.parametrize(
    ("time", "utc"),
    [
        ("2026-11-22T09:15:00+00:00", datetime(2026, 11, 22, 9, 15, tzinfo=UTC)),
        ("2026-11-22T14:45:00+05:30", datetime(2026, 11, 22, 9, 15, tzinfo=UTC)),
        ("2026-11-21T23:15:00.000001-10:00", datetime(2026, 11, 22, 9, 15, 0, 1, tzinfo=UTC)),
        ("2000-01-01T00:00:00Z", datetime(2000, 1, 1, tzinfo=UTC)),
        ("2099-12-31T23:59:59.999999Z", datetime(2099, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("1999-12-31T20:00:00-05:00", datetime(2000, 1, 1, 1, tzinfo=UTC)),
        ("2100-01-01T00:30:00+01:00", datetime(2099, 12, 31, 23, 30, tzinfo=UTC)),
    ],
)
def test_times_become_utc(time: str, utc: datetime) -> None:
    for record in (structured(usage_event({"time": time})), binary(usage_event({"time": time}))):
        occurred_at = decode(record).occurred_at
        assert occurred_at == utc
        assert occurred_at.tzinfo is UTC


def test_the_last_of_repeated_names_counts() -> None:
    assert decode(raw('"photos":500', '"photos":1,"photos":7')).usage.photos == 7
    record = binary(usage_event())
    again: list[Header] = [("ce_id", b"second")]
    assert decode(record._replace(headers=[*record.headers, *again])).message_id == "second"


def test_the_largest_value_is_accepted_and_one_byte_more_is_not() -> None:
    event = usage_event({"comment": ""})
    event["comment"] = "x" * (VALUE_MAX_BYTES - len(as_json(event)))
    assert decode(structured(event)) == EXPECTED
    event["comment"] += "x"
    assert refusal(structured(event)) == (None, "the value has 65,537 bytes; at most 65,536 are accepted")


# -------------------------------------------------------------------------------------------- refused

REQUIRED = [
    *("specversion", "id", "source", "type", "subject", "time", "data"),
    *("data.run_id", "data.usage_type", "data.photos", "data.ai_search"),
    *("data.event", "data.event.id", "data.event.name", "data.user.id"),
]


@pytest.mark.parametrize("path", REQUIRED)
def test_a_missing_field_is_named(path: str) -> None:
    name = path.rpartition(".")[2]
    assert refusal(structured(without(path))) == (path, f"Object missing required field `{name}`")


@pytest.mark.parametrize("path", [path for path in REQUIRED if path not in ("data", "specversion")])
def test_a_missing_field_of_a_binary_event_is_named(path: str) -> None:
    key = ORGANISATION.encode()
    record = binary(usage_event())
    if path.startswith("data."):
        record = record._replace(value=as_json(without(path)["data"]))
    else:
        record = record._replace(headers=[item for item in record.headers if item[0] != f"ce_{path}"])
    name = path.rpartition(".")[2]
    assert refusal(record._replace(key=key)) == (path, f"Object missing required field `{name}`")


@pytest.mark.parametrize("path", REQUIRED)
def test_null_is_refused_where_a_value_is_required(path: str) -> None:
    event = usage_event({path: None})
    field, reason = refusal(structured(event)._replace(key=ORGANISATION.encode()))
    assert field == path
    assert reason.startswith("Expected `")
    assert reason.endswith("got `null`")


TOO_LONG = "x" * 257
WRONG: list[tuple[str, object, str]] = [
    ("specversion", "0.3", "Invalid enum value '0.3'"),
    ("specversion", 1.0, "Expected `str`, got `float`"),
    ("id", "", "Expected `str` of length >= 1"),
    ("id", "x" * 129, "Expected `str` of length <= 128"),
    ("id", 7, "Expected `str`, got `int`"),
    ("source", "", "Expected `str` of length >= 1"),
    ("source", TOO_LONG, "Expected `str` of length <= 256"),
    ("source", ["a"], "Expected `str`, got `array`"),
    ("type", "photo_processing.usage_reported.v2", "Invalid enum value 'photo_processing.usage_reported.v2'"),
    ("type", True, "Expected `str`, got `bool`"),
    ("subject", "", "Expected `str` of length >= 1"),
    ("subject", "o" * 65, "Expected `str` of length <= 64"),
    ("subject", 4711, "Expected `str`, got `int`"),
    ("time", "2026-11-22T09:15:00", "Expected `datetime` with a timezone component"),
    ("time", "22 November 2026", "Invalid RFC3339 encoded datetime"),
    ("time", "2026-02-30T09:15:00Z", "Invalid RFC3339 encoded datetime"),
    ("time", "", "Invalid RFC3339 encoded datetime"),
    ("time", 1_795_338_900, "Expected `datetime`, got `int`"),
    ("time", "1999-12-31T23:59:59Z", "the time is outside the years 2000 to 2099"),
    ("time", "2100-01-01T00:00:00Z", "the time is outside the years 2000 to 2099"),
    ("time", "2099-12-31T23:30:00-05:00", "the time is outside the years 2000 to 2099"),
    ("time", "2000-01-01T00:30:00+01:00", "the time is outside the years 2000 to 2099"),
    ("time", "9999-12-31T23:59:59-23:59", "the time is outside the years 2000 to 2099"),
    ("time", "0001-01-01T00:00:00+23:59", "the time is outside the years 2000 to 2099"),
    ("data", [], "Expected `object`, got `array`"),
    ("data", "{}", "Expected `object`, got `str`"),
    ("data.run_id", "", "Expected `str` of length >= 1"),
    ("data.run_id", "x" * 129, "Expected `str` of length <= 128"),
    ("data.run_id", 88, "Expected `str`, got `int`"),
    ("data.usage_type", "slideshow", "Invalid enum value 'slideshow'"),
    ("data.usage_type", 1, "Expected `str`, got `int`"),
    ("data.photos", -1, "Expected `int` >= 0"),
    ("data.photos", 1_000_001, "Expected `int` <= 1000000"),
    ("data.photos", 10**40, "Expected `int` <= 1000000"),
    ("data.photos", 2**64, "Expected `int` <= 1000000"),
    ("data.photos", 500.0, "Expected `int`, got `float`"),
    ("data.photos", 0.5, "Expected `int`, got `float`"),
    ("data.photos", "500", "Expected `int`, got `str`"),
    ("data.photos", True, "Expected `int`, got `bool`"),
    ("data.ai_search", 1, "Expected `bool`, got `int`"),
    ("data.ai_search", "true", "Expected `bool`, got `str`"),
    ("data.event", 1042, "Expected `object`, got `int`"),
    ("data.event.id", -1, "Expected `int` >= 0"),
    ("data.event.id", 2**53, "Expected `int` <= 9007199254740991"),
    ("data.event.id", "1042", "Expected `int`, got `str`"),
    ("data.event.name", TOO_LONG, "Expected `str` of length <= 256"),
    ("data.event.name", 2026, "Expected `str`, got `int`"),
    ("data.user", "u-17", "Expected `object | null`, got `str`"),
    ("data.user.id", "", "Expected `str` of length >= 1"),
    ("data.user.id", "x" * 129, "Expected `str` of length <= 128"),
    ("data.user.id", 17, "Expected `str`, got `int`"),
    ("data.hold_id", "", "Expected `str` of length >= 1"),
    ("data.hold_id", "x" * 129, "Expected `str` of length <= 128"),
    ("data.hold_id", 1, "Expected `str | null`, got `int`"),
    *(
        (path, f"a{control}b", "control characters are not accepted")
        for path in (
            "id",
            "source",
            "subject",
            "data.run_id",
            "data.event.name",
            "data.user.id",
            "data.hold_id",
        )
        for control in ("\0", "\x1f", "\n", "\t")
    ),
]


@pytest.mark.parametrize(("path", "value", "expected"), WRONG)
def test_a_wrong_value_is_named_with_its_error(path: str, value: object, expected: str) -> None:
    assert refusal(structured(usage_event({path: value}))) == (path, expected)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [wrong for wrong in WRONG if "." in wrong[0] or (isinstance(wrong[1], str) and wrong[0] != "data")],
)
def test_a_wrong_value_of_a_binary_event_is_named(path: str, value: object, expected: str) -> None:
    assert refusal(binary(usage_event({path: value}))) == (path, expected)


@pytest.mark.parametrize("escape", ["\\u0000", "\\u001F", "\\n", "\\t", "\\r", "\\b", "\\f"])
def test_all_escapes_of_control_characters_are_refused(escape: str) -> None:
    assert refusal(raw("run-88", f"run{escape}88")) == ("data.run_id", "control characters are not accepted")


@pytest.mark.parametrize("key", [None, b"", b"org-4712", b"ORG-4711", b"org-4711 ", b"\xff"])
def test_the_key_must_be_the_subject(key: bytes | None) -> None:
    expected = ("subject", "the key of the record differs from subject, the organisation")
    assert refusal(structured(usage_event())._replace(key=key)) == expected
    assert refusal(binary(usage_event())._replace(key=key)) == expected


@pytest.mark.parametrize("value", [None, b""])
@pytest.mark.parametrize(
    "record", [structured(usage_event()), binary(usage_event()), KafkaRecord(None, None)]
)
def test_a_record_without_a_value_is_refused(record: KafkaRecord, value: bytes | None) -> None:
    assert refusal(record._replace(value=value)) == (None, "the record has no value")


@pytest.mark.parametrize(
    "value",
    [
        b"hello",
        b"{",
        b"\x00\x00\x00\x00\x07avro",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf" + STRUCTURED.read_bytes(),
        STRUCTURED.read_bytes() + b"{}",
        b'{"id":"\xff"}',
        b"{'id': 1}",
        raw('"photos":500', '"photos":NaN').value,
        raw('"photos":500', '"photos":Infinity').value,
        raw('"photos":500', '"photos":0500').value,
        raw('"photos":500', '"photos":500,').value,
        raw("run-88", "\\ud800").value,
        raw("run-88", "\\udc00\\ud800").value,
        raw("run-88", "\\u12").value,
        raw("run-88", "run\x0088").value,
        raw("run-88", "run\n88").value,
    ],
)
def test_what_is_not_json_is_refused(value: bytes) -> None:
    field, reason = refusal(KafkaRecord(ORGANISATION.encode(), value))
    assert field is None
    assert reason.startswith("the value is not JSON: ")


@pytest.mark.parametrize("value", ["text", 5, None, True, [], [usage_event()]])
def test_json_that_is_not_an_object_is_refused(value: object) -> None:
    field, reason = refusal(KafkaRecord(ORGANISATION.encode(), as_json(value)))
    assert field is None
    assert reason.startswith("Expected `object`, got `")


def test_json_nested_too_deeply_is_refused() -> None:
    value = b'{"comment":' + b"[" * 60_000
    assert refusal(KafkaRecord(ORGANISATION.encode(), value)) == (None, "the value is nested too deeply")


@pytest.mark.parametrize(
    ("header", "field", "reason"),
    [
        (("ce_id", b"\xff"), "id", "the header is not UTF-8"),
        (("ce_subject", b"\xc3"), "subject", "the header is not UTF-8"),
        (("ce_id", b""), "id", "Expected `str` of length >= 1"),
        (
            ("content-type", b"application/avro"),
            "content-type",
            "data of type 'application/avro' is not supported",
        ),
        (("content-type", b"\xff\x00"), "content-type", "data of type 'ÿ\\x00' is not supported"),
    ],
)
def test_a_bad_header_is_named(header: Header, field: str, reason: str) -> None:
    record = binary(usage_event())
    assert refusal(record._replace(headers=[*record.headers, header])) == (field, reason)


def test_a_header_without_a_value_is_a_missing_attribute() -> None:
    record = binary(usage_event())
    headers: list[Header] = [(name, None if name == "ce_time" else value) for name, value in record.headers]
    assert refusal(record._replace(headers=headers)) == ("time", "Object missing required field `time`")


def test_attributes_without_a_specversion_are_not_an_event() -> None:
    record = binary(usage_event())
    headers = [(name, value) for name, value in record.headers if name != "ce_specversion"]
    field, reason = refusal(record._replace(headers=headers))
    assert (field, reason) == ("specversion", "Object missing required field `specversion`")


def test_binary_data_in_a_structured_envelope_names_the_missing_field() -> None:
    record = structured(usage_event())._replace(value=as_json(usage_event()["data"]))
    assert refusal(record) == ("specversion", "Object missing required field `specversion`")


def test_a_refusal_never_quotes_more_than_a_line() -> None:
    _, reason = refusal(structured(usage_event({"type": "x" * 60_000})))
    assert reason.startswith("Invalid enum value 'xxx")
    assert len(reason) == REASON_MAX_LENGTH


def test_quoted_text_cannot_be_taken_for_a_field() -> None:
    liar = "Object missing required field `id` - at `$.source`"
    assert refusal(structured(usage_event({"type": liar}))) == ("type", f"Invalid enum value '{liar}'")


def test_the_source_of_settlements_is_reserved() -> None:
    event = usage_event({"source": "/credit-ledger/holds"})
    assert refusal(structured(event)) == ("source", "this source is reserved for the ledger")
