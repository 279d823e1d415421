"""Live traffic: each organisation processes its latest photo events, one run after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

from infra.simulator.identity import IdGenerator
from infra.simulator.options import OrganisationTraffic, SimulatorOptions
from infra.simulator.photo_events import USAGE_PROFILES, Month, PhotoEvent, events_of
from infra.simulator.rates import (
    AI_IMAGE_ROTATION,
    PHOTO_PROCESSING,
    STORE_ORIGINALS,
    WATERMARK_REPROCESS,
    Rates,
)
from infra.simulator.runs import Chunk, Run, new_run, truncate_run

_TYPES: Final = (PHOTO_PROCESSING, AI_IMAGE_ROTATION, WATERMARK_REPROCESS, STORE_ORIGINALS)
_TYPE_WEIGHTS: Final = (82, 6, 6, 6)
_RUN_CHUNKS: Final = (1, 6)
_LATEST_EVENTS: Final = 4


@dataclass(frozen=True, slots=True)
class LiveChunk:
    """The next message of a run. `first` and `last` mark the ends of the run; `late` means an old time."""

    organisation: OrganisationTraffic
    run: Run
    run_id: str
    hold_id: str | None
    chunk: Chunk
    first: bool
    last: bool
    late: bool


class LiveTraffic:
    """Creates live messages for the organisations. It never spends more credits than they have.

    With `credit_checks` in the options, a run places a hold before it starts, and organisations without
    credits pause. Without it, `spent` holds the credits that each organisation has used; this class updates
    it.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        rates: Rates,
        spent: MutableMapping[str, int],
        id_generator: IdGenerator,
    ) -> None:
        self._options = options
        self._credit_checks = options.credit_checks
        self._rates = rates
        self._spent = spent
        self._id_generator = id_generator
        self._randomness = Random(f"live/{options.seed}")  # noqa: S311
        self._running: dict[str, deque[LiveChunk]] = {
            organisation.id: deque() for organisation in options.organisations
        }

    def next_chunk(self, now: datetime) -> LiveChunk | None:
        """Return the next message of a random organisation; None if its next run may not start.

        The message has the time `now`, unless its run is late.
        """
        organisation = self._randomness.choice(self._options.organisations)
        queue = self._running[organisation.id]
        if not queue:
            queue.extend(self._start(organisation, now))
        if not queue:
            return None
        chunk = queue.popleft()
        return chunk if chunk.late else replace(chunk, chunk=replace(chunk.chunk, at=now))

    def _start(self, organisation: OrganisationTraffic, now: datetime) -> list[LiveChunk]:
        if self._credit_checks is not None and not self._credit_checks.may_run(organisation.id):
            return []
        run, late = self._new_run(organisation, now)
        run_id, hold_id = self._id_generator.run_id(), None
        if self._credit_checks is not None:
            hold = self._credit_checks.hold(
                organisation.id, run_id, run.usage_type, run.photos, ai_search=run.ai_search
            )
            if hold is None:
                return []
            hold_id = hold.hold_id
            if hold.credits < run.credits(self._rates):
                run = truncate_run(run, hold.credits)
        self._spent[organisation.id] = self._spent.get(organisation.id, 0) + run.credits(self._rates)
        last = len(run.chunks) - 1
        return [
            LiveChunk(
                organisation, run, run_id, hold_id, chunk, first=number == 0, last=number == last, late=late
            )
            for number, chunk in enumerate(run.chunks)
        ]

    def _new_run(self, organisation: OrganisationTraffic, now: datetime) -> tuple[Run, bool]:
        randomness = self._randomness
        late = randomness.random() < self._options.fault_rates.late
        photo_event, started_at = (
            self._late(organisation, now) if late else (self._latest(organisation, now), now)
        )
        chunk_photos_max = self._options.live_chunk_photos_max
        (usage_type,) = randomness.choices(_TYPES, _TYPE_WEIGHTS)
        run = new_run(
            photo_event,
            usage_type,
            randomness.randint(chunk_photos_max // 2, chunk_photos_max * randomness.randint(*_RUN_CHUNKS)),
            started_at,
            randomness,
            ai_search=randomness.random() < USAGE_PROFILES[organisation.style].ai_search
            or usage_type != PHOTO_PROCESSING,
            chunk_photos_max=chunk_photos_max,
        )
        return (run if self._credit_checks is not None else self._affordable(run, organisation)), late

    def _affordable(self, run: Run, organisation: OrganisationTraffic) -> Run:
        left = self._credits_left(organisation)
        if left is None or run.credits(self._rates) <= left:
            return run
        if run.usage_type in (PHOTO_PROCESSING, AI_IMAGE_ROTATION) and left > 0:
            return truncate_run(run, left)
        return replace(run, usage_type=PHOTO_PROCESSING, ai_search=False)

    def _credits_left(self, organisation: OrganisationTraffic) -> int | None:
        if organisation.credits_max is None:
            return None
        return organisation.credits_max - self._spent.get(organisation.id, 0)

    def _latest(self, organisation: OrganisationTraffic, now: datetime) -> PhotoEvent:
        today = now.astimezone(ZoneInfo(organisation.time_zone)).date()
        events = [
            photo_event for photo_event in self._events(organisation, now, (1, 0)) if photo_event.day <= today
        ]
        return self._randomness.choice(events[-_LATEST_EVENTS:])

    def _late(self, organisation: OrganisationTraffic, now: datetime) -> tuple[PhotoEvent, datetime]:
        """Return a photo event, and a time days or weeks ago at which it was processed."""
        latest_at = now - timedelta(days=2)
        zone = ZoneInfo(organisation.time_zone)
        events = [
            photo_event
            for photo_event in self._events(organisation, now, (2, 1, 0))
            if datetime.combine(photo_event.day, time(13), zone) <= latest_at
        ]
        photo_event = self._randomness.choice(events)
        evening = datetime.combine(photo_event.day, time(13), zone).astimezone(UTC)
        return photo_event, min(latest_at, evening + timedelta(hours=self._randomness.uniform(0, 96)))

    def _events(
        self, organisation: OrganisationTraffic, now: datetime, months_back: tuple[int, ...]
    ) -> list[PhotoEvent]:
        current = Month.of(now.astimezone(ZoneInfo(organisation.time_zone)).date())
        seed = self._options.seed
        return [
            photo_event
            for back in months_back
            for photo_event in events_of(organisation, current.earlier(back), seed, back)
        ]
