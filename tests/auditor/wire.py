"""An independent reader of usage messages: returns the message of a record, or the reason of a refusal.

It implements the wire contract: CloudEvents 1.0 in structured or binary mode, the fields and their ranges.
It imports nothing of the product, so it does not repeat its mistakes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

VALUE_LIMIT_BYTES = 65_536
MESSAGE_TYPE = "photo_processing.usage_reported.v1"
USAGE_TYPES = ("photo_processing", "ai_image_rotation", "watermark_reprocess", "store_originals")
ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time")

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)")


class Record(NamedTuple):
    """A record of the usage topic, as the broker stores it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        return (self.partition, self.offset)


@dataclass(frozen=True)
class Message:
    """A valid usage message."""

    source: str
    id: str
    organisation_id: str
    run_id: str
    usage_type: str
    photos: int
    ai_search: bool
    event_id: int
    event_name: str
    user: str | None
    hold_id: str | None
    occurred_at: datetime

    @property
    def identity(self) -> tuple[str, str]:
        return (self.source, self.id)

    @property
    def body(self) -> tuple[object, ...]:
        """The fields that affect the charge. A repeat has the same values; a record with other values is a
        conflict.
        """
        return (
            self.organisation_id,
            self.run_id,
            self.usage_type,
            self.photos,
            self.ai_search,
            self.event_id,
        )


class Malformed(Exception):
    """The record breaks the contract. `field` is the invalid one, or None for the record as a whole."""

    def __init__(self, field: str | None) -> None:
        super().__init__(field)
        self.field = field


def read_message(record: Record) -> Message:
    """Return the message of a record. Raises Malformed."""
    value = record.value
    if not value or len(value) > VALUE_LIMIT_BYTES:
        raise Malformed(None)
    headers = dict(record.headers)
    is_whole_event = headers.get("content-type", b"").lower().startswith(b"application/cloudevents")
    is_binary = "ce_specversion" in headers and not is_whole_event
    envelope = {**_attributes(headers), "data": _json(value)} if is_binary else _json(value)
    message = _message(_expect(envelope, dict, None))
    if record.key != message.organisation_id.encode():
        raise Malformed("subject")
    return message


def _attributes(headers: dict[str, bytes]) -> dict[str, str]:
    content_type = headers.get("content-type", b"application/json").decode("latin-1")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Malformed("content-type")
    attributes = {}
    for name in ATTRIBUTES:
        if f"ce_{name}" in headers:
            try:
                attributes[name] = headers[f"ce_{name}"].decode()
            except UnicodeDecodeError:
                raise Malformed(name) from None
    return attributes


def _json(value: bytes) -> Any:
    try:
        document = json.loads(value.decode(), parse_constant=_not_json)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is not text
    except (ValueError, RecursionError):
        raise Malformed(None) from None
    return document


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _message(envelope: dict[str, Any]) -> Message:
    if _field(envelope, "specversion", str) != "1.0":
        raise Malformed("specversion")
    message_id = _text(envelope, "id", 1, 128)
    source = _text(envelope, "source", 1, 256)
    if _field(envelope, "type", str) != MESSAGE_TYPE:
        raise Malformed("type")
    subject = _text(envelope, "subject", 1, 64)
    occurred_at = _time(_field(envelope, "time", str))
    data = _field(envelope, "data", dict)
    if _field(data, "usage_type", str, "data.") not in USAGE_TYPES:
        raise Malformed("data.usage_type")
    event = _field(data, "event", dict, "data.")
    user = data.get("user")
    if user is not None:
        user = _text(_expect(user, dict, "data.user"), "id", 1, 128, "data.user.")
    hold_id = data.get("hold_id")
    if hold_id is not None:
        hold_id = _text(data, "hold_id", 1, 128, "data.")
    return Message(
        source,
        message_id,
        subject,
        _text(data, "run_id", 1, 128, "data."),
        data["usage_type"],
        _number(data, "photos", 1_000_000, "data."),
        _field(data, "ai_search", bool, "data."),
        _number(event, "id", 2**53 - 1, "data.event."),
        _text(event, "name", 0, 256, "data.event."),
        user,
        hold_id,
        occurred_at,
    )


def _expect(value: Any, kind: type, field: str | None) -> Any:
    if type(value) is not kind:  # so that true is not a number
        raise Malformed(field)
    return value


def _field(container: dict[str, Any], name: str, kind: type, path: str = "") -> Any:
    if name not in container:
        raise Malformed(path + name)
    return _expect(container[name], kind, path + name)


def _text(container: dict[str, Any], name: str, shortest: int, longest: int, path: str = "") -> str:
    text: str = _field(container, name, str, path)
    if not shortest <= len(text) <= longest or any(ord(character) < 32 for character in text):
        raise Malformed(path + name)
    return text


def _number(container: dict[str, Any], name: str, highest: int, path: str) -> int:
    number: int = _field(container, name, int, path)
    if not 0 <= number <= highest:
        raise Malformed(path + name)
    return number


def _time(text: str) -> datetime:
    if not _RFC_3339.fullmatch(text):
        raise Malformed("time")
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise Malformed("time") from None
    if not 2000 <= moment.year < 2100:
        raise Malformed("time")
    return moment.astimezone(UTC)


def in_log_order(records: Sequence[Record]) -> list[Record]:
    """Return records sorted by partition and offset, without those that were read twice."""
    by_place = {record.place: record for record in records}
    return [by_place[place] for place in sorted(by_place)]
