"""`docs/asyncapi.yaml` describes the messages that are really sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from consumers.publishing.public_events import PUBLIC_MAPPINGS
from domain.event_catalogue import EventCodec
from domain.pricing.rate_card import UsageType
from infra.kafka.connections import COMPACTED
from infra.settings import Settings
from tests.contract.asyncapi import DOCUMENT, accept, check, check_message, messages_of, payload_of, resolve
from tests.contract.test_public_messages import EXAMPLES, published
from tests.contract.test_stored_events import LINES
from tests.unit.usage.records import usage_event, without

USAGE_EXAMPLES = sorted((Path(__file__).parent / "usage_messages").glob("structured*.json"))


def test_the_addresses_are_the_defaults_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USAGE_TOPIC", "EVENTS_TOPIC", "BALANCES_TOPIC"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings()
    assert {name: channel["address"] for name, channel in DOCUMENT["channels"].items()} == {
        "usage": settings.usage_topic,
        "deadLetters": settings.dead_letter_topic,
        "events": settings.events_topic,
        "balances": settings.balances_topic,
    }
    configured = DOCUMENT["channels"]["balances"]["bindings"]["kafka"]["topicConfiguration"]
    assert configured == {name: [value] for name, value in COMPACTED.items()}


def test_every_type_of_event_is_described_once() -> None:
    names = [message["name"] for message in messages_of("events")]
    assert sorted(names) == sorted(form.type for form in PUBLIC_MAPPINGS.values())
    for message in messages_of("events"):
        properties = message["payload"]["allOf"][1]["properties"]
        assert properties["type"]["const"] == message["name"]


def test_every_usage_type_is_described() -> None:
    assert DOCUMENT["components"]["schemas"]["UsageType"]["enum"] == list(UsageType)


def test_every_reference_has_a_target() -> None:
    def visit(node: Any) -> None:
        if isinstance(node, dict):
            assert resolve(node)
            for value in node.values():
                visit(value)
        if isinstance(node, list):
            for value in node:
                visit(value)

    visit(DOCUMENT)


@pytest.mark.parametrize("line", EXAMPLES, ids=lambda line: json.loads(line)["type"])
def test_committed_examples_of_events_are_valid(line: bytes) -> None:
    check_message("events", json.loads(line))


@pytest.mark.parametrize("line", EXAMPLES, ids=lambda line: json.loads(line)["type"])
def test_all_fields_of_an_event_are_required(line: bytes) -> None:
    """Every field is required: a consumer may rely on it."""
    message = json.loads(line)
    schema = payload_of("events", message["type"])
    for name in message:
        with pytest.raises(jsonschema_rs.ValidationError):
            check(schema, {key: value for key, value in message.items() if key != name})
    for name in message["data"]:
        data = {key: value for key, value in message["data"].items() if key != name}
        with pytest.raises(jsonschema_rs.ValidationError):
            check(schema, message | {"data": data})


def test_every_stored_event_is_described() -> None:
    codec = EventCodec()
    for topic, state in LINES:
        if topic != b"organisation_snapshot.v1":
            check_message("events", json.loads(published(codec.decode(topic.decode(), state))))


@pytest.mark.parametrize("file", USAGE_EXAMPLES, ids=lambda file: str(file.stem))
def test_committed_examples_of_usage_are_valid(file: Path) -> None:
    accept(payload_of("usage"), json.loads(file.read_text(encoding="utf-8")))


REQUIRED = ["id", "source", "type", "subject", "time", "data", "data.run_id", "data.photos", "data.event.id"]


@pytest.mark.parametrize("path", REQUIRED)
def test_usage_without_a_field_is_not_valid(path: str) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        check(payload_of("usage"), without(path))


@pytest.mark.parametrize(
    "changes", [{"data.photos": 1_000_001}, {"data.usage_type": "upload"}, {"subject": ""}, {"id": "x" * 129}]
)
def test_usage_beyond_its_limits_is_not_valid(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        check(payload_of("usage"), usage_event(changes))


def test_a_field_that_is_not_described_is_noticed() -> None:
    message = json.loads(EXAMPLES[0])
    message["data"]["secret"] = 1
    with pytest.raises(AssertionError, match=r"not described: \$\.data\.secret"):
        check_message("events", message)
