"""Reads the dead-letter topic, which `consumers.usage.dead_letters` writes, for commands and pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

from api.http.page_services import DeadLetter
from consumers.usage.dead_letters import HEADER_PREFIX
from infra.kafka.connections import connection_options
from infra.settings import Settings

_IDLE_TIMEOUT_MS: Final = 3_000
_LATEST: Final = 100
_VALUE_LENGTH_MAX: Final = 4_000


def read_dead_letters(settings: Settings, latest: int | None = None) -> Iterator[Any]:
    """Return the records of the dead-letter topic: all, or about the `latest` last ones per partition.

    Raises:
        KafkaError: the broker does not answer.
    """
    consumer = KafkaConsumer(
        **connection_options(settings),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=_IDLE_TIMEOUT_MS,
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
    """Return the latest dead letters, newest first.

    Raises:
        KafkaError: the broker does not answer.
    """
    letters = [_to_dead_letter(dead_letter_fields(record)) for record in read_dead_letters(settings, _LATEST)]
    return sorted(letters, key=lambda letter: letter.refused_at, reverse=True)[:_LATEST]


def dead_letter_fields(record: Any) -> dict[str, Any]:
    """Return the headers, key and value of a dead letter as text."""
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


def _to_dead_letter(metadata: dict[str, Any]) -> DeadLetter:
    return DeadLetter(
        reason=metadata.get("reason", ""),
        field=metadata.get("field", ""),
        refused_at=metadata.get("time", ""),
        place=f"{metadata.get('topic', '')} {metadata.get('partition', '')}:{metadata.get('offset', '')}",
        key=metadata["key"] or "",
        value=metadata["value"][:_VALUE_LENGTH_MAX],
    )
