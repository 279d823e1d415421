"""Usage messages as the pipeline sends them, generated from a seed, and their expected credits.

The credits are computed from the published rates, without the product's code, so that they can be compared
with the product's result.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple

TOPIC: Final = "photo-processing.usage.v1"
MESSAGES_PER_RUN: Final = 200
HEADERS: Final = [("content-type", b"application/cloudevents+json")]

_FIRST_SENT_AT: Final = datetime(2026, 11, 1, 9, tzinfo=UTC)
_FIRST_SENT_MS: Final = int(_FIRST_SENT_AT.timestamp() * 1_000)
_PICKS: Final = 1 << 14
# Usage type, number out of 20 runs, and photos per credit (0: they are free).
_USAGE_TYPES: Final = (
    ("photo_processing", 16, 1),
    ("ai_image_rotation", 2, 1),
    ("watermark_reprocess", 1, 10),
    ("store_originals", 1, 0),
)


class UsageRecord(NamedTuple):
    """A Kafka record with the attributes of the client's own class."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]] = HEADERS


class _Run:
    """A run: messages of one photo event that differ only in id, time and photos."""

    __slots__ = ("after_id", "after_time", "key", "left", "photos", "photos_per_credit", "tail")

    def __init__(self, organisation: str, run_id: str, rnd: Random) -> None:
        (chosen,) = rnd.choices(_USAGE_TYPES, weights=[often for _, often, _ in _USAGE_TYPES])
        usage_type, _, self.photos_per_credit = chosen
        photo_event = rnd.randrange(1, 5_000)
        self.key = organisation.encode()
        self.after_id = (
            f'","source":"/photo-processing/worker-{rnd.randrange(16)}",'
            f'"type":"photo_processing.usage_reported.v1","subject":"{organisation}","time":"'
        )
        self.after_time = f'","data":{{"run_id":"{run_id}","usage_type":"{usage_type}","photos":'
        self.tail = (
            f',"ai_search":true,"event":{{"id":{photo_event},"name":"City Marathon {photo_event}"}},'
            f'"user":{{"id":"u-{rnd.randrange(100)}"}},"hold_id":null}}}}'
        )
        self.left = rnd.randrange(MESSAGES_PER_RUN // 2, MESSAGES_PER_RUN * 3 // 2)
        self.photos = 0


class Traffic:
    """An endless stream of messages, one per millisecond.

    The first organisations are the busiest, unless all are `alike`. Streams with different seeds have no
    messages and no runs in common.
    """

    def __init__(
        self,
        organisations: Sequence[str],
        *,
        seed: int = 1,
        first_message: int = 0,
        first_offset: int = 0,
        alike: bool = False,
    ) -> None:
        self._rnd = Random(seed)
        self._seed = seed
        self._sent = first_message
        self._offset = first_offset
        self._organisations = organisations
        self._picks = [] if alike else self._skewed(len(organisations))
        self._runs: dict[int, _Run] = {}
        self._runs_started = 0
        self._whole_credits = 0
        self._fractional_runs: list[_Run] = []

    @property
    def credits(self) -> int:
        """The credits of all messages so far. A fraction is rounded up once per run."""
        rounded_up = (-(-run.photos // run.photos_per_credit) for run in self._fractional_runs)
        return self._whole_credits + sum(rounded_up)

    def take(self, count: int) -> list[UsageRecord]:
        """Return the next messages as records of one partition."""
        rnd, picks, runs = self._rnd, self._picks, self._runs
        getrandbits, random = rnd.getrandbits, rnd.random
        kinds = len(picks) or len(self._organisations)
        records = []
        for _ in range(count):
            index = int(random() * kinds)
            organisation = picks[index] if picks else index
            run = runs.get(organisation)
            if run is None or run.left == 0:
                run = self._start_run(organisation)
            run.left -= 1
            photos = getrandbits(5) + 1
            run.photos += photos
            if run.photos_per_credit == 1:
                self._whole_credits += photos
            sent, self._sent = self._sent, self._sent + 1
            second, millisecond = divmod(sent, 1_000)
            value = (
                f'{{"specversion":"1.0","id":"{_uuid7(_FIRST_SENT_MS + sent, getrandbits(74))}{run.after_id}'
                f"{_time_of(second)}.{millisecond:03}Z{run.after_time}{photos}{run.tail}"
            )
            records.append(UsageRecord(TOPIC, 0, self._offset, run.key, value.encode()))
            self._offset += 1
        return records

    def _start_run(self, organisation: int) -> _Run:
        self._runs_started += 1
        name = f"run-{self._seed}-{self._runs_started}"
        run = self._runs[organisation] = _Run(self._organisations[organisation], name, self._rnd)
        if run.photos_per_credit > 1:
            self._fractional_runs.append(run)
        return run

    def _skewed(self, organisations: int) -> list[int]:
        """Return organisation indexes to draw from: each organisation appears about 8 % less often than the
        previous one.
        """
        spread = organisations / 4
        return [min(int(self._rnd.expovariate(1 / spread)), organisations - 1) for _ in range(_PICKS)]


def organisation_ids(count: int) -> list[str]:
    """Return ids of organisations."""
    return [f"org-{number:06d}" for number in range(count)]


def with_repeats(
    records: Sequence[UsageRecord],
    share: float,
    *,
    of: Sequence[UsageRecord] | None = None,
    within: int = 20_000,
    seed: int = 1,
) -> list[UsageRecord]:
    """Return records with repeats: a share repeats records of `of`, or records at most `within` places
    before.
    """
    rnd = Random(seed)
    mixed: list[UsageRecord] = []
    for record in records:
        while rnd.random() < share and (of or mixed):
            again = rnd.choice(of) if of else mixed[-rnd.randrange(1, min(within, len(mixed)) + 1)]
            mixed.append(again._replace(offset=len(mixed)))
        mixed.append(record._replace(offset=len(mixed)))
    return mixed


@lru_cache(maxsize=4)
def _time_of(second: int) -> str:
    return f"{_FIRST_SENT_AT + timedelta(seconds=second):%Y-%m-%dT%H:%M:%S}"


def _uuid7(unix_ms: int, random_bits: int) -> str:
    """Return a canonical UUIDv7: 48 bits of time, version 7, 12 random bits, variant 2, 62 random bits."""
    random_a, random_b = random_bits >> 62, random_bits & (1 << 62) - 1
    digits = f"{unix_ms << 80 | 7 << 76 | random_a << 64 | 2 << 62 | random_b:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
