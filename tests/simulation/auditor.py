"""Checks a ledger against the records it was given. Shares no code with the product."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.integration.consumers.recount import Identity, RecountedLedger
from tests.unit.usage.records import KafkaRecord

RATES = {
    "photo_processing": 1_000_000,
    "ai_image_rotation": 1_000_000,
    "watermark_reprocess": 100_000,
    "store_originals": 0,
}

Place = tuple[int, int]
"""Partition and offset."""


class ReadMessage(NamedTuple):
    """A usage message, read independently of the product."""

    identity: Identity
    organisation_id: str
    charge_fingerprint: tuple[Any, ...]


def audit(
    log: Mapping[Place, KafkaRecord],
    opened: Mapping[str, int],
    recounted: RecountedLedger,
    letters: Sequence[Place],
) -> None:
    """Check the outcome of every record.

    Args:
        log: all records.
        opened: the initial credits of every open organisation.
        books: the contents of the ledger.
        letters: the places of the records in the dead-letter topic.
    """
    said = {place: read(record) for place, record in log.items()}
    bodies: dict[Identity, set[tuple[Any, ...]]] = defaultdict(set)
    for saying in said.values():
        if saying is not None:
            bodies[saying.identity].add(saying.charge_fingerprint)
    charged = {charge.identity: charge for charge in recounted.charges}

    # Every charge has a message, the right price, and an open organisation.
    for charge in recounted.charges:
        assert charge.charge_fingerprint in bodies[charge.identity]
        searched = charge.ai_search or charge.usage_type != "photo_processing"
        assert charge.rate_millionths == (RATES[charge.usage_type] if searched else 0)
    spent: dict[str, int] = defaultdict(int)
    for charge in recounted.charges:
        spent[charge.organisation_id] += charge.credits
    assert recounted.balances == {name: given - spent[name] for name, given in opened.items()}

    # Every identity is charged, unless its organisation never opened.
    for identity, substances in bodies.items():
        (organisation_id,) = {charge_fingerprint[0] for charge_fingerprint in substances}
        assert (identity in charged) == (organisation_id in opened)

    # Dead letters are complete, and there are no others.
    refused = {said[place] for place in letters}
    for place, saying in said.items():
        if saying is None:
            assert place in letters
        elif (
            saying.identity in charged
            and charged[saying.identity].charge_fingerprint == saying.charge_fingerprint
        ):
            # A repeat may be refused if it equals a body that was refused.
            assert place not in letters or len(bodies[saying.identity]) > 1
        else:
            assert saying in refused


def read(record: KafkaRecord) -> ReadMessage | None:
    """Return the message of a record, or None if it is no usage message."""
    try:
        event = json.loads(record.value or b"")
    except ValueError:
        return None
    if "data" not in event:
        attributes = {name.removeprefix("ce_"): value for name, value in record.headers if value is not None}
        event = {name: value.decode() for name, value in attributes.items()} | {"data": event}
    data = event["data"]
    return ReadMessage(
        (event["source"], event["id"]),
        event["subject"],
        (
            *(event["subject"], data["run_id"], data["usage_type"]),
            *(data["photos"], data["ai_search"], data["event"]["id"]),
        ),
    )
