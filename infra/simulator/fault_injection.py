"""What goes wrong on the way: messages sent twice, overtaken, contradicted or broken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from random import Random
from typing import Final

from infra.simulator.identity import IdGenerator
from infra.simulator.options import FaultRates
from infra.simulator.wire import MalformedKind, Outgoing, Usage, binary, malformed, structured

REMEMBERED_MAX: Final = 1_000
_OVERTAKEN_BY_MAX: Final = 25
_AT_ONCE_SHARE: Final = 0.5


class FaultInjector:
    """Turns what is reported into the records that travel.

    It remembers at most `REMEMBERED_MAX` records, some of them for long: these are sent again, or get a
    twin with the same id and another body. A twin waits until the original is acknowledged, because the
    first of the two is the one that counts.
    """

    def __init__(self, fault_rates: FaultRates, id_generator: IdGenerator, seed: int) -> None:
        self._shares = fault_rates
        self._id_generator = id_generator
        self._randomness = Random(f"disturbances/{seed}")  # noqa: S311
        self._remembered: list[Outgoing] = []

    def with_faults(self, usages: Iterable[Usage]) -> Iterator[Outgoing]:
        """Return the records of all usages, and what the disturbances add to them."""
        overtaken: list[tuple[int, int, Outgoing]] = []
        for place, usage in enumerate(usages):
            record = self._encoded(usage)
            if self._happens(self._shares.out_of_order):
                behind = place + self._randomness.randint(1, _OVERTAKEN_BY_MAX)
                heappush(overtaken, (behind, place, record))
            else:
                yield from self._with_fault(record)
            while overtaken and overtaken[0][0] <= place:
                yield from self._with_fault(heappop(overtaken)[2])
        while overtaken:
            yield from self._with_fault(heappop(overtaken)[2])

    def _encoded(self, usage: Usage) -> Outgoing:
        return binary(usage) if self._happens(self._shares.binary) else structured(usage)

    def _with_fault(self, record: Outgoing) -> Iterator[Outgoing]:
        yield record
        self._remember(record)
        if self._happens(self._shares.repeated):
            at_once = self._happens(_AT_ONCE_SHARE)
            yield record if at_once else self._randomness.choice(self._remembered)
        if self._happens(self._shares.conflicting):
            original = self._randomness.choice(self._remembered).usage
            yield structured(replace(original, photos=original.photos + 1), waits=True)
        if self._happens(self._shares.malformed):
            malformed_kind = self._randomness.choice(list(MalformedKind))
            fresh = replace(record.usage, message_id=self._id_generator.message_id(record.usage.occurred_at))
            yield malformed(fresh, malformed_kind)

    def _remember(self, record: Outgoing) -> None:
        if len(self._remembered) < REMEMBERED_MAX:
            self._remembered.append(record)
        else:
            self._remembered[self._randomness.randrange(REMEMBERED_MAX)] = record

    def _happens(self, share: float) -> bool:
        return share > 0 and self._randomness.random() < share
