"""Where partitions begin and end, as far as the broker can tell at the moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from kafka import TopicPartition

OffsetLookup = Callable[[list[TopicPartition]], Mapping[TopicPartition, int]]
"""`beginning_offsets` or `end_offsets` of a `kafka.KafkaConsumer`."""


def known_offsets(lookup: OffsetLookup, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the offsets of partitions; one that has no leader is left out, and must be asked for again.

    kafka-python raises KeyError for all of them where one has no leader.

    Raises:
        KafkaError: no broker answers.
    """
    try:
        return dict(lookup(list(partitions)))
    except KeyError:
        found: dict[TopicPartition, int] = {}
        for partition in partitions:
            with suppress(KeyError):
                found.update(lookup([partition]))
        return found
