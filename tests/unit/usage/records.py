"""Usage messages and Kafka records for tests, as the pipeline would write them."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, NamedTuple

TOPIC = "photo-processing.usage.v1"
ORGANISATION = "org-4711"

Header = tuple[str, bytes | None]


class KafkaRecord(NamedTuple):
    """A record as a Kafka client returns it."""

    key: bytes | None
    value: bytes | None
    headers: list[Header] = []  # noqa: RUF012 - never changed
    topic: str = TOPIC
    partition: int = 0
    offset: int = 0


_EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "0198f0c2-7c1e-7d3a-9c55-1f2e3d4c5b6a",
    "source": "/photo-processing/worker-7",
    "type": "photo_processing.usage_reported.v1",
    "subject": ORGANISATION,
    "time": "2026-11-22T09:15:00Z",
    "data": {
        "run_id": "run-88",
        "usage_type": "photo_processing",
        "photos": 500,
        "ai_search": True,
        "event": {"id": 1042, "name": "City Marathon 2026"},
        "user": {"id": "u-17"},
        "hold_id": None,
    },
}


def usage_event(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a valid CloudEvent with fields replaced, named by their dotted paths."""
    event = deepcopy(_EVENT)
    for path, value in (changes or {}).items():
        *parents, name = path.split(".")
        holder = event
        for parent in parents:
            holder = holder[parent]
        holder[name] = value
    return event


def without(path: str) -> dict[str, Any]:
    """Return a valid event without one field."""
    event = usage_event()
    *parents, name = path.split(".")
    holder = event
    for parent in parents:
        holder = holder[parent]
    del holder[name]
    return event


def as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def structured(event: dict[str, Any], **place: Any) -> KafkaRecord:
    """Return the record of an event in structured mode."""
    headers: list[Header] = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    return KafkaRecord(str(event.get("subject", ORGANISATION)).encode(), as_json(event), headers, **place)


def binary(event: dict[str, Any], **place: Any) -> KafkaRecord:
    """Return the record of an event in binary mode: attributes in headers, data in the value."""
    headers: list[Header] = [
        (f"ce_{name}", str(content).encode()) for name, content in event.items() if name != "data"
    ]
    headers.append(("content-type", b"application/json"))
    return KafkaRecord(str(event["subject"]).encode(), as_json(event["data"]), headers, **place)


def usage_record(
    message_id: str,
    organisation_id: str = ORGANISATION,
    photos: int = 1,
    changes: dict[str, Any] | None = None,
    **place: Any,
) -> KafkaRecord:
    """Return a structured record of a message."""
    named = {"id": message_id, "subject": organisation_id, "data.photos": photos}
    return structured(usage_event(named | (changes or {})), **place)
