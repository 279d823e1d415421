"""The messages published on Kafka, byte for byte.

`public_events.jsonl` has one line per event type, as it was first published. A failure here means that a
consumer would break: only add fields, or publish a new type in addition to the old one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from consumers.publishing.ordered_producer import PRODUCER_BATCH_BYTES
from consumers.publishing.public_balances import public_balance
from consumers.publishing.public_events import LIST_MAX, PUBLIC_MAPPINGS, public_event
from domain.credits.lots import Lot, LotAllocation, LotKind
from domain.credits.organisation_state import OrganisationSnapshot
from domain.event_catalogue import CURRENT_TYPES, EventCodec
from domain.shared.aggregate import DomainEvent
from domain.shared.errors import UnknownEventType
from domain.shared.stream_keys import stream_id
from tests.contract.asyncapi import check_message
from tests.contract.test_stored_events import LINES
from tests.unit.shared.events import EVENTS, HOLD_REQUEST

ORGANISATION: Final = "org-4711"
STREAM: Final = str(stream_id(ORGANISATION))
VERSION: Final = 7
POSITION: Final = 90_210
EXAMPLES_FILE: Final = Path(__file__).with_name("public_events.jsonl")
EXAMPLES: Final = EXAMPLES_FILE.read_bytes().splitlines()
TOPICS: Final = [topic for topic in EVENTS if CURRENT_TYPES[topic] is not OrganisationSnapshot]
CODEC: Final = EventCodec()


def published(event: DomainEvent) -> bytes:
    return public_event(ORGANISATION, STREAM, VERSION, POSITION, event)


def public_type(topic: str) -> str:
    return f"credit_ledger.{topic}"


def example(topic: str) -> bytes:
    (line,) = [line for line in EXAMPLES if json.loads(line)["type"] == public_type(topic)]
    return line


def data(event: DomainEvent) -> dict[str, Any]:
    return dict(json.loads(published(event))["data"])


def test_every_event_has_a_public_form() -> None:
    assert set(PUBLIC_MAPPINGS) == {
        shape for shape in CURRENT_TYPES.values() if shape is not OrganisationSnapshot
    }


def test_every_event_has_a_committed_example() -> None:
    known = {json.loads(line)["type"] for line in EXAMPLES}
    missing = [topic for topic in TOPICS if public_type(topic) not in known]
    assert not missing, f"append to tests/contract/{EXAMPLES_FILE.name}:\n" + "\n".join(
        published(EVENTS[topic]).decode() for topic in missing
    )


@pytest.mark.parametrize("topic", TOPICS)
def test_the_public_form_has_not_changed(topic: str) -> None:
    assert published(EVENTS[topic]) == example(topic)


@pytest.mark.parametrize("topic", TOPICS)
def test_the_envelope(topic: str) -> None:
    message = json.loads(example(topic))
    sent = {name: value for name, value in message.items() if name != "data"}
    assert sent == {
        "specversion": "1.0",
        "id": f"{STREAM}/7",
        "source": "/credit-ledger",
        "type": public_type(topic),
        "subject": ORGANISATION,
        "time": "2026-12-31T18:30:00.250000Z",
        "datacontenttype": "application/json",
    }
    event = EVENTS[topic]
    common = {name: message["data"][name] for name in ("version", "position", "actor", "cause")}
    assert common == {"version": 7, "position": POSITION, "actor": event.actor, "cause": event.cause}
    assert message["data"]["balance_change"] == event.balance_delta


@pytest.mark.parametrize(
    ("topic", "changes"),
    [
        ("credits_granted.v1", {"reason": "SECRET"}),
        ("usage_charged.v1", {"event_name": "SECRET"}),
        ("charge_refunded.v1", {"reason": "SECRET", "event_name": "SECRET"}),
        ("hold_placed.v1", {"request": msgspec.structs.replace(HOLD_REQUEST, event_name="SECRET")}),
    ],
)
def test_text_typed_by_people_is_not_published(topic: str, changes: dict[str, Any]) -> None:
    event: Any = msgspec.structs.replace(EVENTS[topic], **changes)  # type: ignore[type-var]
    assert b"SECRET" in CODEC.encode(event)
    assert b"SECRET" not in published(event)


def test_every_stored_shape_can_be_published() -> None:
    """All shapes that were ever stored, with times of other zones and without optional fields."""
    sent = [
        json.loads(published(CODEC.decode(topic.decode(), state)))
        for topic, state in LINES
        if topic != b"organisation_snapshot.v1"
    ]
    assert len(sent) > len(EXAMPLES)
    occurred = [message["data"]["occurred_at"] for message in sent if "occurred_at" in message["data"]]
    assert "2026-07-01T11:59:59Z" in occurred
    assert all(at.endswith("Z") for at in occurred)


LARGEST: Final = 2**53 - 1


@pytest.mark.parametrize(
    ("topic", "field", "entry"),
    [
        ("usage_charged.v1", "draws", LotAllocation(LARGEST, LARGEST)),
        ("charge_refunded.v1", "returned", Lot(LotKind.PAID, LARGEST, LARGEST, LARGEST)),
    ],
)
def test_a_list_that_would_make_a_message_too_large_is_left_out_and_named(
    topic: str, field: str, entry: Any
) -> None:
    event: Any = msgspec.structs.replace(EVENTS[topic], **{field: (entry,) * LIST_MAX})  # type: ignore[type-var]
    assert len(data(event)[field]) == LIST_MAX
    assert "left_out" not in data(event)
    assert len(published(event)) < PRODUCER_BATCH_BYTES

    longer = msgspec.structs.replace(event, **{field: (entry,) * (LIST_MAX + 1)})
    assert data(longer) == {**data(event), field: [], "left_out": [field]}
    check_message("events", json.loads(published(longer)))


def test_times_are_published_in_utc() -> None:
    (state,) = [state for _, state in LINES if b"+05:30" in state]
    assert data(CODEC.decode("usage_charged.v1", state))["occurred_at"] == "2026-07-01T11:59:59Z"


def test_a_charge_of_photos_settled_before() -> None:
    charge: Any = msgspec.structs.replace(  # type: ignore[type-var]
        EVENTS["usage_charged.v1"], hold_id="hold-8", settled=12, from_hold=300
    )
    sent = data(charge)
    assert (sent["hold_id"], sent["photos_settled"], sent["credits_from_hold"]) == ("hold-8", 12, 300)


def test_a_plan_without_an_end() -> None:
    event = msgspec.structs.replace(EVENTS["plan_changed.v1"], expires_at=None)  # type: ignore[type-var]
    assert data(event)["expires_at"] is None


def test_a_refund_to_a_free_lot() -> None:
    event = msgspec.structs.replace(  # type: ignore[type-var]
        EVENTS["charge_refunded.v1"], returned=(Lot(LotKind.FREE, 7, 30, 30),)
    )
    assert data(event)["returned"] == [{"lot": 7, "kind": "free", "size": 30, "credits": 30}]


def test_an_event_without_a_public_form_is_refused() -> None:
    snapshot = EVENTS["organisation_snapshot.v1"]
    with pytest.raises(UnknownEventType, match="OrganisationSnapshot has no public form"):
        published(snapshot)


@pytest.mark.parametrize(
    ("balance", "on_hold", "available", "processing"),
    [(10, 3, 7, "allowed"), (4, 3, 1, "allowed"), (3, 3, 0, "paused"), (-5, 2, -7, "paused")],
)
def test_a_balance(balance: int, on_hold: int, available: int, processing: str) -> None:
    assert (
        public_balance("org-1", balance, on_hold, 42)
        == (
            f'{{"organisation_id":"org-1","available":{available},"balance":{balance},"on_hold":{on_hold},'
            f'"processing":"{processing}","position":42}}'
        ).encode()
    )
