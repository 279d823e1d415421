"""The wire format of usage messages: CloudEvents 1.0 over Kafka, structured or binary, and malformed ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

_TYPE: Final = "photo_processing.usage_reported.v1"
_STRUCTURED: Final = [("content-type", b"application/cloudevents+json")]

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage that one message reports. With `user_id` None the system started the run."""

    organisation_id: str
    source: str
    message_id: str
    run_id: str
    usage_type: str
    photos: int
    ai_search: bool
    event_id: int
    event_name: str
    user_id: str | None
    occurred_at: datetime
    hold_id: str | None = None


class MalformedKind(StrEnum):
    """The kinds of malformed messages."""

    NOT_JSON = "not_json"
    MISSING_FIELD = "missing_field"
    FOREIGN_KEY = "foreign_key"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish. With `waits`, all earlier records must be acknowledged first."""

    usage: Usage
    key: bytes
    value: bytes
    headers: Headers
    malformed_kind: MalformedKind | None = None
    waits: bool = False


def structured(usage: Usage, *, waits: bool = False) -> Outgoing:
    """Return a record in structured mode: its value is the whole CloudEvent."""
    event = {**_attributes(usage), "data": _data(usage)}
    return Outgoing(usage, usage.organisation_id.encode(), _json(event), _STRUCTURED, waits=waits)


def binary(usage: Usage) -> Outgoing:
    """Return a record in binary mode: its headers are the attributes, its value is the data."""
    headers: Headers = [("content-type", b"application/json")]
    headers += [(f"ce_{name}", text.encode()) for name, text in _attributes(usage).items()]
    return Outgoing(usage, usage.organisation_id.encode(), _json(_data(usage)), headers)


def malformed(usage: Usage, malformed_kind: MalformedKind) -> Outgoing:
    """Return a record that the consumer must refuse."""
    key = usage.organisation_id.encode()
    value = _json({**_attributes(usage), "data": _data(usage)})
    if malformed_kind is MalformedKind.NOT_JSON:
        value = value[: len(value) // 2]
    elif malformed_kind is MalformedKind.MISSING_FIELD:
        data = _data(usage)
        del data["photos"]
        value = _json({**_attributes(usage), "data": data})
    else:
        key += b"-other"
    return Outgoing(usage, key, value, _STRUCTURED, malformed_kind)


def _attributes(usage: Usage) -> dict[str, str]:
    time = usage.occurred_at.astimezone(UTC).isoformat(timespec="milliseconds")
    return {
        "specversion": "1.0",
        "id": usage.message_id,
        "source": usage.source,
        "type": _TYPE,
        "subject": usage.organisation_id,
        "time": time.replace("+00:00", "Z"),
    }


def _data(usage: Usage) -> dict[str, Any]:
    return {
        "run_id": usage.run_id,
        "usage_type": usage.usage_type,
        "photos": usage.photos,
        "ai_search": usage.ai_search,
        "event": {"id": usage.event_id, "name": usage.event_name},
        "user": None if usage.user_id is None else {"id": usage.user_id},
        "hold_id": usage.hold_id,
    }


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
