"""The records of a simulated pipeline, in order. They depend only on the options and the clock."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from random import Random
from typing import Final

from infra.simulator.fault_injection import FaultInjector
from infra.simulator.history import history_of
from infra.simulator.identity import IdGenerator
from infra.simulator.live import LiveTraffic
from infra.simulator.options import OrganisationTraffic, SimulatorOptions
from infra.simulator.rates import Rates
from infra.simulator.runs import Chunk, Run
from infra.simulator.wire import Outgoing, Usage

Clock = Callable[[], datetime]
"""Returns the current time with its time zone."""

_WORKERS: Final = 8


class Traffic:
    """The messages of one simulation. Call `history` before `live`."""

    def __init__(self, options: SimulatorOptions) -> None:
        process = options.process if options.process is not None else secrets.token_hex(4)
        self._options = options
        self._rates = Rates(options.store_originals_rate_millionths)
        self._id_generator = IdGenerator(options.seed, process)
        self._fault_injector = FaultInjector(options.fault_rates, self._id_generator, options.seed)
        self._workers = Random(f"workers/{options.seed}")  # noqa: S311
        self._spent: Counter[str] = Counter()

    def history(self, now: datetime) -> Iterator[Outgoing]:
        """Return the messages of the past months, earliest first."""
        yield from self._fault_injector.with_faults(self._past_usages(now))

    def live(self, clock: Clock) -> Iterator[Outgoing]:
        """Return live messages, each created when it is requested. They end when the credit checks stop."""
        yield from self._fault_injector.with_faults(self._present_usages(clock))

    def _past_usages(self, now: datetime) -> list[Usage]:
        usages = []
        for organisation in self._options.organisations:
            for run in history_of(organisation, now, self._options.seed, self._rates):
                self._spent[organisation.id] += run.credits(self._rates)
                run_id, worker = self._id_generator.run_id(), self._worker()
                usages += [self._usage(organisation, run, run_id, worker, chunk) for chunk in run.chunks]
        return sorted(usages, key=lambda usage: usage.occurred_at)

    def _present_usages(self, clock: Clock) -> Iterator[Usage]:
        live = LiveTraffic(self._options, self._rates, self._spent, self._id_generator)
        credit_checks = self._options.credit_checks
        workers: dict[str, str] = {}
        while True:
            chunk = live.next_chunk(clock())
            if chunk is None:
                if credit_checks is None or credit_checks.wait():
                    return
                continue
            organisation = chunk.organisation
            if chunk.first:
                workers[organisation.id] = self._worker()
            worker, run_id = workers[organisation.id], chunk.run_id
            yield self._usage(organisation, chunk.run, run_id, worker, chunk.chunk, hold_id=chunk.hold_id)
            if chunk.last and credit_checks is not None and chunk.hold_id is not None:
                credit_checks.settle(organisation.id, chunk.hold_id, chunk.run.photos)

    def _usage(
        self,
        organisation: OrganisationTraffic,
        run: Run,
        run_id: str,
        worker: str,
        chunk: Chunk,
        *,
        hold_id: str | None = None,
    ) -> Usage:
        return Usage(
            organisation_id=organisation.id,
            source=worker,
            message_id=self._id_generator.message_id(chunk.at),
            run_id=run_id,
            usage_type=run.usage_type,
            photos=chunk.photos,
            ai_search=run.ai_search,
            event_id=run.photo_event.id,
            event_name=run.photo_event.name,
            user_id=run.user_id,
            occurred_at=chunk.at,
            hold_id=hold_id,
        )

    def _worker(self) -> str:
        return f"/photo-processing/worker-{self._workers.randint(1, _WORKERS)}"
