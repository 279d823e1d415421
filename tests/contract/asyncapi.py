"""Checks messages against `docs/asyncapi.yaml`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import yaml

DOCUMENT_FILE: Final = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"
DOCUMENT: Final[dict[str, Any]] = yaml.safe_load(DOCUMENT_FILE.read_text(encoding="utf-8"))


def check(schema: dict[str, Any], instance: Any) -> None:
    """Check that a schema of the document accepts an instance and describes every field of it.

    Consumers ignore unknown fields, and so do the schemas. But every field that we send must be described.
    """
    accept(schema, instance)
    unknown = list(_unknown(schema, instance, "$"))
    assert not unknown, f"not described: {', '.join(unknown)}"


def accept(schema: dict[str, Any], instance: Any) -> None:
    """Check that a schema of the document accepts an instance, which may have unknown fields."""
    _validator(json.dumps(schema)).validate(instance)


def check_message(channel: str, message: Any) -> None:
    """Check a message against the description of its type in its channel."""
    check(payload_of(channel, message.get("type")), message)


def payload_of(channel: str, event_type: str | None = None) -> dict[str, Any]:
    """Return the schema of a channel's only message, or of the message with a name."""
    messages = messages_of(channel)
    if len(messages) > 1:
        messages = [message for message in messages if message["name"] == event_type]
    (message,) = messages
    return dict(message["payload"])


def messages_of(channel: str) -> list[dict[str, Any]]:
    return [resolve(message) for message in DOCUMENT["channels"][channel]["messages"].values()]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """Return the target of a node that is a reference, or the node itself."""
    if "$ref" not in node:
        return node
    found: Any = DOCUMENT
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


@cache
def _validator(schema: str) -> Any:
    whole = {"allOf": [json.loads(schema)], "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft7Validator(whole, validate_formats=True)


def _unknown(schema: dict[str, Any], instance: Any, path: str) -> Iterator[str]:
    parts = list(_parts(schema))
    if isinstance(instance, dict):
        for name, value in instance.items():
            describing = [part["properties"][name] for part in parts if name in part.get("properties", ())]
            if not describing:
                yield f"{path}.{name}"
            else:
                yield from _unknown({"allOf": describing}, value, f"{path}.{name}")
    if isinstance(instance, list):
        items = [part["items"] for part in parts if "items" in part]
        for value in instance:
            yield from _unknown({"allOf": items}, value, f"{path}[]")


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    schema = resolve(schema)
    yield schema
    for part in schema.get("allOf", ()):
        yield from _parts(part)
