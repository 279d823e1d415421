"""Every way a usage message can break the contract, one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Headers = tuple[tuple[str, bytes], ...]
Parts = tuple[bytes | None, bytes | None, Headers]
"""Key, value and headers of a record."""

MalformedEncoder = Callable[[dict[str, Any]], Parts]
"""Breaks a valid event."""

STRUCTURED: Headers = (("content-type", b"application/cloudevents+json"),)


def encode(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def structured(event: dict[str, Any]) -> Parts:
    """Return the record of an event in structured mode."""
    return event["subject"].encode(), encode(event), STRUCTURED


def binary(event: dict[str, Any]) -> Parts:
    """Return the record of an event in binary mode: attributes in headers, data in the value."""
    attributes = {name: text for name, text in event.items() if name != "data"}
    headers = [("content-type", b"application/json; charset=utf-8")]
    headers += [(f"ce_{name}", str(text).encode()) for name, text in attributes.items()]
    return event["subject"].encode(), encode(event["data"]), tuple(headers)


def _without(*path: str) -> MalformedEncoder:
    def flaw(event: dict[str, Any]) -> Parts:
        key = event["subject"].encode()
        *containers, name = path
        place = event
        for container in containers:
            place = place[container]
        del place[name]
        return key, encode(event), STRUCTURED

    return flaw


def _with(*path: str, value: Any) -> MalformedEncoder:
    def flaw(event: dict[str, Any]) -> Parts:
        key = event["subject"].encode()
        *containers, name = path
        place = event
        for container in containers:
            place = place[container]
        place[name] = value
        return key, encode(event), STRUCTURED

    return flaw


def _rewritten(change: Callable[[bytes], bytes | None]) -> MalformedEncoder:
    def flaw(event: dict[str, Any]) -> Parts:
        key, value, headers = structured(event)
        assert value is not None
        return key, change(value), headers

    return flaw


def _with_key(change: Callable[[bytes], bytes | None]) -> MalformedEncoder:
    def flaw(event: dict[str, Any]) -> Parts:
        key, value, headers = structured(event)
        assert key is not None
        return change(key), value, headers

    return flaw


def _binary_with(header: str, content: bytes | None) -> MalformedEncoder:
    def flaw(event: dict[str, Any]) -> Parts:
        key, value, headers = binary(event)
        kept = tuple(pair for pair in headers if pair[0] != header)
        return key, value, kept if content is None else (*kept, (header, content))

    return flaw


def _binary_rewritten(change: Callable[[bytes], bytes]) -> MalformedEncoder:
    def flaw(event: dict[str, Any]) -> Parts:
        key, value, headers = binary(event)
        assert value is not None
        return key, change(value), headers

    return flaw


def _long_subject(event: dict[str, Any]) -> Parts:
    event["subject"] = "o" * 65
    return structured(event)


def _with_member(member: bytes) -> Callable[[bytes], bytes]:
    return lambda value: value[:-1] + b"," + member + b"}"


MALFORMED_ENCODERS: dict[str, tuple[MalformedEncoder, str | None]] = {
    "no value": (_rewritten(lambda _: None), None),
    "an empty value": (_rewritten(lambda _: b""), None),
    "half a document": (_rewritten(lambda value: value[: len(value) // 2]), None),
    "two documents": (_rewritten(lambda value: value + value), None),
    "an array": (_rewritten(lambda value: b"[" + value + b"]"), None),
    "a number": (_rewritten(lambda _: b"17"), None),
    "not UTF-8": (_rewritten(lambda value: value.replace(b'"run_id":"', b'"run_id":"\xff')), None),
    "half a surrogate pair": (_rewritten(_with_member(rb'"note":"\ud800"')), None),
    "not a number": (_rewritten(_with_member(b'"note":NaN')), None),
    "nested too deeply": (_rewritten(_with_member(b'"note":' + b"[" * 30_000 + b"]" * 30_000)), None),
    "oversize": (_rewritten(lambda value: value + b" " * (65_537 - len(value))), None),
    **{
        f"without {name}": (_without(name), name)
        for name in ("specversion", "id", "source", "type", "subject", "time", "data")
    },
    **{
        f"without {name} in data": (_without("data", name), f"data.{name}")
        for name in ("run_id", "usage_type", "photos", "ai_search", "event")
    },
    "without an event id": (_without("data", "event", "id"), "data.event.id"),
    "without an event name": (_without("data", "event", "name"), "data.event.name"),
    "without a user id": (_with("data", "user", value={}), "data.user.id"),
    "of a later specification": (_with("specversion", value="2.0"), "specversion"),
    "of another type": (_with("type", value="photo_processing.run_finished.v1"), "type"),
    "of an unknown usage type": (_with("data", "usage_type", value="teleportation"), "data.usage_type"),
    "with an empty id": (_with("id", value=""), "id"),
    "with a long id": (_with("id", value="i" * 129), "id"),
    "with a number for an id": (_with("id", value=17), "id"),
    "with a long source": (_with("source", value="s" * 257), "source"),
    "with a long subject": (_long_subject, "subject"),
    "with an empty run": (_with("data", "run_id", value=""), "data.run_id"),
    "with a long run": (_with("data", "run_id", value="r" * 129), "data.run_id"),
    "with fewer than no photos": (_with("data", "photos", value=-1), "data.photos"),
    "with too many photos": (_with("data", "photos", value=1_000_001), "data.photos"),
    "with half a photo": (_with("data", "photos", value=1.5), "data.photos"),
    "with photos as text": (_with("data", "photos", value="5"), "data.photos"),
    "with true photos": (_with("data", "photos", value=True), "data.photos"),
    "with null photos": (_with("data", "photos", value=None), "data.photos"),
    "with a text for a flag": (_with("data", "ai_search", value="yes"), "data.ai_search"),
    "with a number for a flag": (_with("data", "ai_search", value=1), "data.ai_search"),
    "with a negative event": (_with("data", "event", "id", value=-1), "data.event.id"),
    "with an event above 2^53": (_with("data", "event", "id", value=2**53), "data.event.id"),
    "with a long event name": (_with("data", "event", "name", value="n" * 257), "data.event.name"),
    "with a text for an event": (_with("data", "event", value="City Marathon"), "data.event"),
    "with a text for a user": (_with("data", "user", value="u-17"), "data.user"),
    "with an empty user": (_with("data", "user", value={"id": ""}), "data.user.id"),
    "with an empty hold": (_with("data", "hold_id", value=""), "data.hold_id"),
    "with a text for data": (_with("data", value="5 photos"), "data"),
    "without a zone": (_with("time", value="2026-11-22T09:15:00"), "time"),
    "on no day": (_with("time", value="2026-02-30T09:15:00Z"), "time"),
    "in words": (_with("time", value="yesterday"), "time"),
    "as a number of seconds": (_with("time", value=1_795_338_900), "time"),
    "of the last century": (_with("time", value="1999-12-31T23:59:59Z"), "time"),
    "of the next century": (_with("time", value="2100-01-01T00:00:00Z"), "time"),
    "under a foreign key": (_with_key(lambda key: key + b"-other"), "subject"),
    "under no key": (_with_key(lambda _: None), "subject"),
    "with NUL in the run": (_with("data", "run_id", value="run\0"), "data.run_id"),
    "with a line break in the run": (_with("data", "run_id", value="run\n88"), "data.run_id"),
    "with a tab in the event's name": (_with("data", "event", "name", value="City\tRun"), "data.event.name"),
    "with a bell in the user": (_with("data", "user", value={"id": "u\a"}), "data.user.id"),
    "with NUL in the id": (_with("id", value="i\0"), "id"),
    "binary without an id": (_binary_with("ce_id", None), "id"),
    "binary without a time": (_binary_with("ce_time", None), "time"),
    "binary of another type": (_binary_with("ce_type", b"something.else.v1"), "type"),
    "binary with a source that is not UTF-8": (_binary_with("ce_source", b"/\xff"), "source"),
    "binary with a line break in the id": (_binary_with("ce_id", b"i\n1"), "id"),
    "binary as plain text": (_binary_with("content-type", b"text/plain"), "content-type"),
    "binary with half its data": (_binary_rewritten(lambda value: value[: len(value) // 2]), None),
    "binary with an array for data": (_binary_rewritten(lambda value: b"[" + value + b"]"), "data"),
    "binary with too many photos": (
        _binary_rewritten(lambda value: value.replace(b'"photos":', b'"photos":9999999')),
        "data.photos",
    ),
}
"""By name: a function that breaks an event, and the invalid field."""
