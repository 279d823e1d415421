"""A seeded workload: the records of a small topic, and other actions while they are charged."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from tests.unit.usage.records import KafkaRecord, binary, structured, usage_event

PARTITIONS = 2
RECORDS = 8
"""In each partition."""
KNOWN = ("a", "b")
OPENS_LATER = "later"
NEVER_OPENS = "never"


class Action(NamedTuple):
    """An action on an organisation."""

    what: str
    whom: str | int = ""


class Workload(NamedTuple):
    """Records by partition, and actions in order. Ids of organisations start with the caller's prefix."""

    records: list[list[KafkaRecord]]
    actions: list[Action]


def workload(seed: int, prefix: str) -> Workload:
    chance = random.Random(seed)
    records = [_partition(chance, prefix, number) for number in range(PARTITIONS)]
    actions = [
        *(Action("charge", chance.randrange(PARTITIONS)) for _ in range(PARTITIONS * 3)),
        *(Action("grant", name) for name in KNOWN),
        *(Action("flush") for _ in range(2)),
        Action("rival", chance.randrange(PARTITIONS)),
        Action("keep house"),
    ]
    chance.shuffle(actions)
    # Late enough for messages to be parked before.
    actions.insert(len(actions) * 2 // 3, Action("open", OPENS_LATER))
    return Workload(records, [*actions, Action("keep house")])


def _partition(chance: random.Random, prefix: str, partition: int) -> list[KafkaRecord]:
    records: list[KafkaRecord] = []
    for number in range(RECORDS):
        draw = chance.random()
        if draw < 0.08:
            records.append(KafkaRecord(b"key", b"not JSON"))
        elif draw < 0.25 and records:
            records.append(chance.choice(records))
        elif draw < 0.35 and any(record.headers for record in records):
            original = chance.choice([record for record in records if record.headers])
            records.append(_another_body(original, chance.randrange(50, 99)))
        else:
            name = chance.choice([*KNOWN, *KNOWN, *KNOWN, OPENS_LATER, NEVER_OPENS])
            kind = chance.choice(["photo_processing", "watermark_reprocess", "store_originals"])
            changes: dict[str, Any] = {
                "id": f"{prefix}-{partition}-{number}",
                "subject": f"{prefix}-{name}",
                "data.usage_type": kind,
                "data.photos": chance.randrange(40),
                "data.run_id": f"run-{partition}-{number % 3}",
                "data.ai_search": chance.random() < 0.8,
            }
            write = chance.choice([structured, binary])
            records.append(write(usage_event(changes)))
    return records


def _another_body(record: KafkaRecord, photos: int) -> KafkaRecord:
    """Return a record with the same identity and other values."""
    assert record.value is not None
    value = record.value.replace(b'"photos": ', f'"photos": {photos}'.encode())
    return record._replace(value=value)
