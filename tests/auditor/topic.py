"""Reads a topic from its beginning over the broker's socket."""

from __future__ import annotations

import time
from collections.abc import Mapping

from kafka import KafkaConsumer, TopicPartition

from tests.auditor.wire import Record

QUIET_S = 2.0
"""A broker may report a wrong end of a log, so the end is reached when no record comes for this time."""


def read_topic(
    bootstrap_servers: str, topic: str, ends: Mapping[int, int] | None = None, *, within_s: float = 120.0
) -> list[Record]:
    """Return all records of a topic, at least up to the known `ends` of its partitions.

    Raises TimeoutError if they do not come in time.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers.split(","),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=5_000,
    )
    records: list[Record] = []
    missing = {partition: end for partition, end in (ends or {}).items() if end > 0}
    deadline = time.monotonic() + within_s
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        quiet_since = time.monotonic()
        while missing or time.monotonic() - quiet_since < QUIET_S:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic}: offsets up to {missing} did not come within {within_s} s")
            for topic_partition, polled in consumer.poll(timeout_ms=200).items():
                quiet_since = time.monotonic()
                number = topic_partition.partition
                records += [
                    Record(number, each.offset, each.key, each.value, tuple(each.headers)) for each in polled
                ]
                if polled[-1].offset + 1 >= missing.get(number, 0):
                    missing.pop(number, None)
    finally:
        consumer.close(autocommit=False)
    return records
