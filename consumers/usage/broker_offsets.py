"""The first and last offsets of partitions, as far as the broker knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from kafka import TopicPartition

OffsetLookup = Callable[[list[TopicPartition]], Mapping[TopicPartition, int]]
"""`beginning_offsets` or `end_offsets` of a `kafka.KafkaConsumer`."""


def known_offsets(lookup: OffsetLookup, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the offsets of partitions. Partitions without a leader are left out; retry them later.

    kafka-python raises KeyError for the whole request if one partition has no leader.

    Raises:
        KafkaError: no broker responds.
    """
    try:
        return dict(lookup(list(partitions)))
    except KeyError:
        found: dict[TopicPartition, int] = {}
        for partition in partitions:
            with suppress(KeyError):
                found.update(lookup([partition]))
        return found
