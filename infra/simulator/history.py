"""The simulated history: an organisation's runs since the start of the third month before now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

from infra.simulator.options import CHUNK_PHOTOS_MIN, OrganisationTraffic
from infra.simulator.photo_events import Month, events_of
from infra.simulator.rates import PHOTO_PROCESSING, Rates
from infra.simulator.runs import Chunk, Run, fit_between, runs_of

MONTHS_BACK: Final = (3, 2, 1, 0)
_CURRENT_MONTH_RUNS_MIN: Final = 4
_TRIES_MAX: Final = 4


def history_of(organisation: OrganisationTraffic, now: datetime, seed: int, rates: Rates) -> list[Run]:
    """Return the finished runs of the current month and the three before, in the organisation's time zone."""
    zone = ZoneInfo(organisation.time_zone)
    current = Month.of(now.astimezone(zone).date())
    runs: list[Run] = []
    for index, months_back in enumerate(MONTHS_BACK):
        month = current.earlier(months_back)
        randomness = Random(f"runs/{seed}/{organisation.id}/{month}")  # noqa: S311
        events = events_of(organisation, month, seed, months_back)
        by_event = [runs_of(photo_event, organisation, randomness) for photo_event in events]
        finished = [run for of_event in by_event for run in of_event if _end(run) <= now]
        if months_back == 0 and len(_uploads(finished)) < _CURRENT_MONTH_RUNS_MIN:
            # The month has just begun, so move its first event into the past.
            month_start = datetime(month.year, month.number, 1, tzinfo=zone).astimezone(UTC)
            finished = fit_between(by_event[0], month_start, now)
        if organisation.history_credits is not None:
            finished = _with_few_searches(finished, organisation.history_credits[index], rates, randomness)
        runs += finished
    return runs


def _end(run: Run) -> datetime:
    return run.chunks[-1].at


def _uploads(runs: list[Run]) -> list[Run]:
    return [run for run in runs if run.usage_type == PHOTO_PROCESSING]


def _with_few_searches(runs: list[Run], credits: int, rates: Rates, randomness: Random) -> list[Run]:
    """Return the runs of an organisation that uses AI search for a few photos only."""
    free = [replace(run, ai_search=False) if run.usage_type == PHOTO_PROCESSING else run for run in runs]
    free = [run for run in free if run.credits(rates) == 0]
    candidates = [run for run in _uploads(free) if run.photos >= credits]
    tries = min(len(candidates), _TRIES_MAX, credits // CHUNK_PHOTOS_MIN)
    if tries == 0:
        return free
    each, rest = divmod(credits, tries)
    for number, run in enumerate(randomness.sample(candidates, tries)):
        album = Chunk(each + (1 if number < rest else 0), run.started_at)
        free[free.index(run)] = replace(run, ai_search=True, chunks=(album,))
    return free
