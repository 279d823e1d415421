"""The runs of a photo event, and the messages of each run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

from infra.simulator.options import CHUNK_PHOTOS_MAX, CHUNK_PHOTOS_MIN, OrganisationTraffic
from infra.simulator.photo_events import USAGE_PROFILES, PhotoEvent
from infra.simulator.rates import (
    AI_IMAGE_ROTATION,
    PHOTO_PROCESSING,
    STORE_ORIGINALS,
    WATERMARK_REPROCESS,
    Rates,
    whole_credits,
)

_FAILED_SHARE_MAX = 0.02
_SYSTEM_SHARE = 0.35
_USERS = 12


@dataclass(frozen=True, slots=True)
class Chunk:
    """The photos and the time of one message."""

    photos: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """A run on the photos of an event. With `user_id` None the system started it."""

    photo_event: PhotoEvent
    usage_type: str
    ai_search: bool
    user_id: str | None
    chunks: tuple[Chunk, ...]

    @property
    def photos(self) -> int:
        return sum(chunk.photos for chunk in self.chunks)

    @property
    def started_at(self) -> datetime:
        return self.chunks[0].at

    def credits(self, rates: Rates) -> int:
        """Return the credits of the whole run."""
        return whole_credits(self.photos, rates.rate_millionths(self.usage_type, ai_search=self.ai_search))


def runs_of(photo_event: PhotoEvent, organisation: OrganisationTraffic, randomness: Random) -> list[Run]:
    """Return all runs of an event: uploads on its day and the next, other runs within the week."""
    profile = USAGE_PROFILES[organisation.style]
    evening = datetime.combine(photo_event.day, time(13), ZoneInfo(organisation.time_zone)).astimezone(UTC)
    uploads = split(photo_event.photos, randomness.randint(*profile.runs), randomness)
    runs = []
    for number, photos in enumerate(uploads):
        # Most photographers upload the same evening, the rest on the next day.
        hours = randomness.uniform(0, 9) if number < len(uploads) * 0.75 else randomness.uniform(20, 32)
        ai_search = randomness.random() < profile.ai_search
        started_at = evening + timedelta(hours=hours)
        runs.append(
            new_run(photo_event, PHOTO_PROCESSING, photos, started_at, randomness, ai_search=ai_search)
        )
    for usage_type, share, photos in (
        (AI_IMAGE_ROTATION, profile.rotation, min(randomness.randint(20, 400), photo_event.photos)),
        (WATERMARK_REPROCESS, profile.watermark, photo_event.photos),
        (STORE_ORIGINALS, profile.originals, photo_event.photos),
    ):
        if randomness.random() < share:
            started_at = evening + timedelta(hours=randomness.uniform(24, 120))
            runs.append(new_run(photo_event, usage_type, photos, started_at, randomness))
    return runs


def new_run(
    photo_event: PhotoEvent,
    usage_type: str,
    photos: int,
    started_at: datetime,
    randomness: Random,
    *,
    ai_search: bool = True,
    chunk_photos_max: int = CHUNK_PHOTOS_MAX,
) -> Run:
    """Return a run on some photos. A few photos fail and are not reported."""
    processed = photos
    if photos > CHUNK_PHOTOS_MIN:
        processed -= int(photos * randomness.uniform(0, _FAILED_SHARE_MAX))
    at = started_at
    chunks = []
    for chunk in split_into_chunks(processed, chunk_photos_max, randomness):
        at += timedelta(seconds=chunk * randomness.uniform(0.05, 0.2))
        chunks.append(Chunk(chunk, at))
    user_id = None if randomness.random() < _SYSTEM_SHARE else f"u-{randomness.randint(1, _USERS):02}"
    return Run(photo_event, usage_type, ai_search, user_id, tuple(chunks))


def split_into_chunks(photos: int, chunk_photos_max: int, randomness: Random) -> list[int]:
    """Return the photos of each message: 5 to `chunk_photos_max`, or fewer if the whole run has fewer."""
    size = randomness.randint(max(2 * CHUNK_PHOTOS_MIN, chunk_photos_max // 4), chunk_photos_max)
    chunks = [size] * (photos // size)
    rest = photos - sum(chunks)
    if 0 < rest < CHUNK_PHOTOS_MIN and chunks:
        chunks[-1] -= CHUNK_PHOTOS_MIN - rest
        rest = CHUNK_PHOTOS_MIN
    return chunks + ([rest] if rest else [])


def split(photos: int, parts: int, randomness: Random) -> list[int]:
    """Split photos into `parts` uneven parts, none empty."""
    cuts = sorted(randomness.sample(range(1, photos), min(parts, photos) - 1))
    return [end - start for start, end in zip([0, *cuts], [*cuts, photos], strict=True)]


def truncate_run(run: Run, photos: int) -> Run:
    """Return the run cut off after its first `photos` photos."""
    chunks = []
    for chunk in run.chunks:
        if photos <= 0:
            break
        chunks.append(replace(chunk, photos=min(chunk.photos, photos)))
        photos -= chunk.photos
    return replace(run, chunks=tuple(chunks))


def fit_between(runs: list[Run], start: datetime, end: datetime) -> list[Run]:
    """Return the runs with all times scaled into a span, in the same order. The last time is its end."""
    first = min(run.started_at for run in runs)
    last = max(run.chunks[-1].at for run in runs)
    scale = min(1.0, (end - start) / max(last - first, timedelta(seconds=1)))
    return [
        replace(run, chunks=tuple(replace(chunk, at=end - (last - chunk.at) * scale) for chunk in run.chunks))
        for run in runs
    ]
