"""Reads the dead-letter topic, for the command line and for the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

from api.pages.sessions import DeadLetter
from consumers.dead_letters import HEADER_PREFIX
from infra.kafka import connection_options
from infra.settings import Settings

_NOTHING_FOR_MS: Final = 3_000
_LATEST: Final = 100
_VALUE_LENGTH_MAX: Final = 4_000


def dead_letters_of(settings: Settings, latest: int | None = None) -> Iterator[Any]:
    """Return the records of the dead-letter topic: all, or about so many of the latest of each partition.

    Raises:
        KafkaError: the broker does not answer.
    """
    consumer = KafkaConsumer(
        **connection_options(settings),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=_NOTHING_FOR_MS,
    )
    with closing(consumer):
        topic = settings.dead_letter_topic
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        if latest is not None:
            beginnings, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
            if all(ends[each] <= beginnings[each] for each in partitions):
                return
            for each in partitions:
                consumer.seek(each, max(beginnings[each], ends[each] - latest))
        yield from consumer


def latest_dead_letters(settings: Settings) -> list[DeadLetter]:
    """Return the latest refused messages, newest first.

    Raises:
        KafkaError: the broker does not answer.
    """
    letters = [_letter(refusal(record)) for record in dead_letters_of(settings, _LATEST)]
    return sorted(letters, key=lambda letter: letter.refused_at, reverse=True)[:_LATEST]


def refusal(record: Any) -> dict[str, Any]:
    """Return what a record of the topic says, as text."""
    headers = {
        name.removeprefix(HEADER_PREFIX): content.decode("utf-8", "replace")
        for name, content in record.headers
        if name.startswith(HEADER_PREFIX)
    }
    attributes = {
        name: (content or b"").decode("utf-8", "replace")
        for name, content in record.headers
        if not name.startswith(HEADER_PREFIX)
    }
    return {
        **headers,
        "key": None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
        "headers": attributes,
        "value": (record.value or b"").decode("utf-8", "backslashreplace"),
    }


def _letter(told: dict[str, Any]) -> DeadLetter:
    return DeadLetter(
        reason=told.get("reason", ""),
        field=told.get("field", ""),
        refused_at=told.get("time", ""),
        place=f"{told.get('topic', '')} {told.get('partition', '')}:{told.get('offset', '')}",
        key=told["key"] or "",
        value=told["value"][:_VALUE_LENGTH_MAX],
    )
