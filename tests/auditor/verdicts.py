"""The expected outcome of every record: charged, dropped as a repeat, or refused.

The first record of an identity in partition order wins. Records of one organisation share a partition, so
this order is the order of the log. An identity in two partitions has no first record; such traffic is an
error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.auditor.wire import Malformed, Message, Record, in_log_order, read_message

Identity = tuple[str, str]
Place = tuple[int, int]


class Refusal(NamedTuple):
    """A record that belongs in the dead-letter topic, and the invalid field."""

    record: Record
    field: str | None


class Accepted(NamedTuple):
    """A message that is charged once, and its first record."""

    message: Message
    record: Record

    @property
    def place(self) -> Place:
        return self.record.place


@dataclass
class Verdicts:
    """The expected outcomes of all records of a topic."""

    accepted: dict[Identity, Accepted] = field(default_factory=dict)
    refused: dict[Place, Refusal] = field(default_factory=dict)
    repeats: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    """By partition, the offset after its last record."""

    def of(self, organisation_ids: Iterable[str]) -> dict[str, list[Accepted]]:
        """Return the messages that are charged to organisations, in the order of the log."""
        by_organisation: dict[str, list[Accepted]] = {name: [] for name in organisation_ids}
        for accepted in self.accepted.values():
            name = accepted.message.organisation_id
            if name in by_organisation:
                by_organisation[name].append(accepted)
        return by_organisation


def judge(records: Sequence[Record]) -> Verdicts:
    """Return the expected outcomes of the records of a topic, which may be in any order."""
    verdicts = Verdicts()
    for record in in_log_order(records):
        verdicts.ends[record.partition] = record.offset + 1
        try:
            message = read_message(record)
        except Malformed as malformed:
            verdicts.refused[record.place] = Refusal(record, malformed.field)
            continue
        first = verdicts.accepted.setdefault(message.identity, Accepted(message, record))
        if first.place[0] != record.partition:
            raise ValueError(f"{message.identity} is in two partitions: nobody can say which came first")
        if first.message.body != message.body:
            verdicts.refused[record.place] = Refusal(record, "id")
        elif first.place != record.place:
            verdicts.repeats += 1
    return verdicts
