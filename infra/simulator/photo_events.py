"""The photo events of an organisation: names, days and sizes. They depend only on the seed."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from random import Random
from typing import Final
from zlib import crc32

from infra.simulator.options import OrganisationTraffic, Style

EVENT_PHOTOS_MIN: Final = 200
EVENT_PHOTOS_MAX: Final = 20_000
GROWTH_PER_MONTH: Final = 1.18
_DAY_WEIGHTS: Final = (1, 1, 1, 1, 2, 8, 7)  # Monday to Sunday: most photo events are at weekends
_IDS_PER_MONTH: Final = 32


@dataclass(frozen=True, slots=True)
class UsageProfile:
    """The usage of an organisation of one style.

    `events` is the range of photo events per month, `runs` the range of Process Photos runs per event.
    `photos` is the number of photos of the current month. `spread` is the sigma of the log-normal
    distribution of event sizes. `ai_search` is a share of the runs; the other shares are of events with such
    a run.
    """

    places: tuple[str, ...]
    occasions: tuple[str, ...]
    events: tuple[int, int]
    runs: tuple[int, int]
    photos: int
    spread: float
    ai_search: float
    rotation: float
    watermark: float
    originals: float


USAGE_PROFILES: Final = {
    Style.SPORTS: UsageProfile(
        places=("City", "Lakeside", "Hill Country", "Old Town", "Harbour", "Valley", "Monsoon", "Sunrise"),
        occasions=("Marathon", "Half Marathon", "10K Run", "Cyclothon", "Trail Run", "Triathlon"),
        events=(6, 8),
        runs=(5, 10),
        photos=32_000,
        spread=0.9,
        ai_search=0.93,
        rotation=0.2,
        watermark=0.2,
        originals=0.2,
    ),
    Style.WEDDINGS: UsageProfile(
        places=("Rosewood", "Harbor View", "Maple Hall", "The Conservatory", "Willow Farm", "Grand Plaza"),
        occasions=("Wedding", "Engagement Party", "Wedding Reception", "Corporate Gala", "Charity Gala"),
        events=(8, 11),
        runs=(3, 6),
        photos=13_000,
        spread=0.5,
        ai_search=0.85,
        rotation=0.35,
        watermark=0.3,
        originals=0.5,
    ),
    Style.CAMPUS: UsageProfile(
        places=("Junior", "Senior", "Northgate", "Southfield", "St Mary's", "Riverside"),
        occasions=("School Sports Day", "Graduation", "Swim Gala", "Prize Giving", "Freshers' Ball"),
        events=(5, 7),
        runs=(2, 4),
        photos=4_500,
        spread=0.5,
        ai_search=0.6,
        rotation=0.15,
        watermark=0.1,
        originals=0.2,
    ),
}


@dataclass(frozen=True, slots=True)
class PhotoEvent:
    """A photo event: `id` as shown to people, local `day`, and number of uploaded `photos`."""

    id: int
    name: str
    day: date
    photos: int


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month."""

    year: int
    number: int

    @staticmethod
    def of(day: date) -> Month:
        return Month(day.year, day.month)

    def earlier(self, months: int) -> Month:
        """Return the month `months` months earlier."""
        year, number = divmod(self.year * 12 + self.number - 1 - months, 12)
        return Month(year, number + 1)

    @property
    def days(self) -> list[date]:
        return [date(self.year, self.number, day + 1) for day in range(monthrange(self.year, self.number)[1])]


@lru_cache(maxsize=4_096)
def events_of(
    organisation: OrganisationTraffic, month: Month, seed: int, months_back: int
) -> tuple[PhotoEvent, ...]:
    """Return the photo events of a month, earliest first. Older months have smaller events."""
    randomness = Random(f"events/{seed}/{organisation.id}/{month}")  # noqa: S311
    profile = USAGE_PROFILES[organisation.style]
    days = month.days
    count = randomness.randint(*profile.events)
    chosen = sorted(randomness.choices(days, [_DAY_WEIGHTS[day.weekday()] for day in days], k=count))
    names = randomness.sample(
        [f"{place} {occasion} {month.year}" for place in profile.places for occasion in profile.occasions],
        count,
    )
    first_id = _first_id(organisation, month)
    sizes = _sizes(profile, count, months_back, randomness)
    return tuple(
        PhotoEvent(first_id + index, name, day, photos)
        for index, (name, day, photos) in enumerate(zip(names, chosen, sizes, strict=True))
    )


def _sizes(profile: UsageProfile, count: int, months_back: int, randomness: Random) -> list[int]:
    """Return the photos of each event. Their sum follows the organisation's growth up to that month."""
    total = profile.photos * GROWTH_PER_MONTH**-months_back * randomness.uniform(0.95, 1.05)
    weights = [randomness.lognormvariate(0, profile.spread) for _ in range(count)]
    scale = total / sum(weights)
    return [round(min(max(weight * scale, EVENT_PHOTOS_MIN), EVENT_PHOTOS_MAX)) for weight in weights]


def _first_id(organisation: OrganisationTraffic, month: Month) -> int:
    """Return the first id of a month. Each organisation has its own range, each month a part of it."""
    months = (month.year * 12 + month.number) % 300
    return (1 + crc32(organisation.id.encode()) % 900) * 10_000 + months * _IDS_PER_MONTH
