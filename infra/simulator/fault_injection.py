"""Injects faults into the traffic: repeated, reordered, conflicting and malformed messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from random import Random
from typing import Final

from infra.simulator.identity import IdGenerator
from infra.simulator.options import FaultRates
from infra.simulator.wire import MalformedKind, Outgoing, Usage, binary, malformed, structured

RECENT_MAX: Final = 1_000
_DELAY_RECORDS_MAX: Final = 25
_IMMEDIATE_SHARE: Final = 0.5


class FaultInjector:
    """Turns usage into records and adds faults.

    It keeps at most `RECENT_MAX` sent records, some of them for a long time. It sends some of these again,
    and for some it sends a conflicting record with the same id and another body. A conflicting record is sent
    only after the original is acknowledged, because the ledger charges the first of the two.
    """

    def __init__(self, fault_rates: FaultRates, id_generator: IdGenerator, seed: int) -> None:
        self._rates = fault_rates
        self._id_generator = id_generator
        self._randomness = Random(f"disturbances/{seed}")  # noqa: S311
        self._sent_records: list[Outgoing] = []

    def with_faults(self, usages: Iterable[Usage]) -> Iterator[Outgoing]:
        """Return the records of all usages, with faults added."""
        delayed: list[tuple[int, int, Outgoing]] = []
        for place, usage in enumerate(usages):
            record = self._encoded(usage)
            if self._happens(self._rates.out_of_order):
                behind = place + self._randomness.randint(1, _DELAY_RECORDS_MAX)
                heappush(delayed, (behind, place, record))
            else:
                yield from self._with_fault(record)
            while delayed and delayed[0][0] <= place:
                yield from self._with_fault(heappop(delayed)[2])
        while delayed:
            yield from self._with_fault(heappop(delayed)[2])

    def _encoded(self, usage: Usage) -> Outgoing:
        return binary(usage) if self._happens(self._rates.binary) else structured(usage)

    def _with_fault(self, record: Outgoing) -> Iterator[Outgoing]:
        yield record
        self._keep_sample(record)
        if self._happens(self._rates.repeated):
            immediately = self._happens(_IMMEDIATE_SHARE)
            yield record if immediately else self._randomness.choice(self._sent_records)
        if self._happens(self._rates.conflicting):
            original = self._randomness.choice(self._sent_records).usage
            yield structured(replace(original, photos=original.photos + 1), waits=True)
        if self._happens(self._rates.malformed):
            malformed_kind = self._randomness.choice(list(MalformedKind))
            fresh = replace(record.usage, message_id=self._id_generator.message_id(record.usage.occurred_at))
            yield malformed(fresh, malformed_kind)

    def _keep_sample(self, record: Outgoing) -> None:
        if len(self._sent_records) < RECENT_MAX:
            self._sent_records.append(record)
        else:
            self._sent_records[self._randomness.randrange(RECENT_MAX)] = record

    def _happens(self, share: float) -> bool:
        return share > 0 and self._randomness.random() < share
