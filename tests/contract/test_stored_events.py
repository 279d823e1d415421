"""Every event that was ever stored can still be loaded.

Each line of `stored_events.tsv` is a topic, a tab, and the bytes of an event as databases contain them. Lines
are only added. A topic's first line is the event of that topic in `tests/unit/shared/events.py`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from domain.credits.auto_top_up_events import HeldReason, OffReason
from domain.credits.events import CreditsGranted, GrantKind
from domain.event_catalogue import CURRENT_TYPES, UPCASTERS, EventCodec
from domain.payments.events import Flag, PaymentKind
from domain.pricing.plans import Plan
from domain.pricing.rate_card import UsageType
from domain.shared.money import Currency
from tests.unit.shared.events import EVENTS, SNAPSHOT_WITH_HOLDS, SNAPSHOT_WITH_TOP_UP

GOLDEN_FILE: Final = Path(__file__).with_name("stored_events.tsv")
LINES: Final = [
    (topic, state)
    for topic, _, state in (line.partition(b"\t") for line in GOLDEN_FILE.read_bytes().splitlines())
]
CODEC: Final = EventCodec()


def first_line(topic: str) -> bytes:
    return next(state for name, state in LINES if name.decode() == topic)


def test_every_topic_has_a_golden_line() -> None:
    known = {topic.decode() for topic, _ in LINES}
    missing = [topic for topic in (*CURRENT_TYPES, *UPCASTERS) if topic not in known]
    lines = [
        f"{topic}\t{CODEC.encode(EVENTS[topic]).decode()}"
        if topic in EVENTS
        else f"(add an event of {topic} to tests/unit/shared/events.py first)"
        for topic in missing
    ]
    assert not missing, (
        f"topics without a golden line: {', '.join(missing)}.\n"
        f"Append to tests/contract/{GOLDEN_FILE.name}, and never change a line that is there:\n"
        + "\n".join(lines)
    )


@pytest.mark.parametrize(
    ("topic", "state"), LINES, ids=[f"line {number}" for number in range(1, len(LINES) + 1)]
)
def test_stored_bytes_load(topic: bytes, state: bytes) -> None:
    """A failure here means that this version cannot read a database: give the event a new topic instead."""
    assert CODEC.decode(topic.decode(), state).recorded_at.tzinfo is not None


@pytest.mark.parametrize(
    "words",
    [Currency, Flag, GrantKind, HeldReason, OffReason, PaymentKind, Plan, UsageType],
    ids=lambda words: words.__name__,
)
def test_every_enum_value_is_on_some_golden_line(words: type[StrEnum]) -> None:
    stored = GOLDEN_FILE.read_text()
    assert [word for word in words if f'"{word.value}"' not in stored] == []


@pytest.mark.parametrize("topic", EVENTS)
def test_stored_bytes_decode_to_the_same_events(topic: str) -> None:
    assert CODEC.decode(topic, first_line(topic)) == EVENTS[topic]


@pytest.mark.parametrize("topic", EVENTS)
def test_the_same_bytes_are_stored_except_for_appended_fields(topic: str) -> None:
    stored_then = first_line(topic).removesuffix(b"]")
    assert CODEC.encode(EVENTS[topic]).startswith(stored_then)


class _Campaign(CreditsGranted, frozen=True, array_like=True, gc=False):
    campaign: str | None = None


class _CampaignWithoutDefault(CreditsGranted, frozen=True, array_like=True, gc=False):
    campaign: str


class TestEvolution:
    """A new last field with a default keeps the topic. Every other change needs a new topic."""

    TOPIC = "credits_granted.v1"

    def codec_of(self, shape: type[Any]) -> EventCodec:
        return EventCodec({**CURRENT_TYPES, self.TOPIC: shape})

    def test_a_field_appended_with_a_default_loads_old_bytes(self) -> None:
        old = EVENTS[self.TOPIC]
        assert isinstance(old, CreditsGranted)
        grown = self.codec_of(_Campaign).decode(self.TOPIC, first_line(self.TOPIC))
        assert grown == _Campaign(**msgspec.structs.asdict(old), campaign=None)

    def test_an_older_version_reads_newer_bytes_and_ignores_the_new_field(self) -> None:
        old = EVENTS[self.TOPIC]
        assert isinstance(old, CreditsGranted)
        grown = _Campaign(**msgspec.structs.asdict(old), campaign="spring")
        newer_bytes = self.codec_of(_Campaign).encode(grown)
        assert newer_bytes.endswith(b',"spring"]')
        assert CODEC.decode(self.TOPIC, newer_bytes) == old

    def test_a_field_appended_without_a_default_does_not(self) -> None:
        with pytest.raises(msgspec.ValidationError, match="at least length 8, got 7"):
            self.codec_of(_CampaignWithoutDefault).decode(self.TOPIC, first_line(self.TOPIC))


def test_a_snapshot_with_holds_matches_its_line() -> None:
    line = next(
        state for topic, state in LINES if b"hold-8" in state and topic == b"organisation_snapshot.v1"
    )
    assert CODEC.decode("organisation_snapshot.v1", line) == SNAPSHOT_WITH_HOLDS


def test_a_snapshot_with_auto_top_up_matches_its_line() -> None:
    line = next(state for topic, state in LINES if topic == b"organisation_snapshot.v1" and b"top-1" in state)
    assert CODEC.decode("organisation_snapshot.v1", line) == SNAPSHOT_WITH_TOP_UP
