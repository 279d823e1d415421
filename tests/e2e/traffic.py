"""Generated usage of a faulty pipeline: repeated, late, out of order, malformed and conflicting messages.

Everything follows from the seed. Partitions are chosen here, by organisation, so that the order of two
records is known.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from tests.auditor.accounts import PUBLISHED_MILLIONTHS, RateChange
from tests.e2e.malformed_messages import MALFORMED_ENCODERS, Headers, Parts, binary, structured

ZONES = ("UTC", "Asia/Kolkata", "America/New_York", "Pacific/Auckland", "Asia/Kathmandu", "Europe/London")
SOURCES = 10

RATE_CHANGES = (
    RateChange("store_originals", 50_000, datetime(2026, 8, 1, tzinfo=UTC)),
    RateChange("watermark_reprocess", 250_000, datetime(2026, 9, 1, tzinfo=UTC)),
    RateChange("ai_image_rotation", 1_500_000, datetime(2026, 10, 1, tzinfo=UTC)),
)
BEGINNING = datetime(2026, 7, 1, tzinfo=UTC)
SPAN_S = 140 * 86_400
MONTH_ENDS = tuple(datetime(2026, month, 1, tzinfo=UTC) for month in range(8, 12))

REPEATED = 0.05
CONFLICTING = 0.003
MALFORMED = 0.01
LATE = 0.03
BINARY = 0.4
FULL_SIZE_BYTES = 65_536


@dataclass(frozen=True)
class Organisation:
    """An organisation of the traffic. It opens at the start, in the middle, or never."""

    id: str
    time_zone: str
    currency: str
    trial_credits: int
    opens: str


class Outgoing(NamedTuple):
    """A record to publish."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class _Sent(NamedTuple):
    """An event of the traffic; `place` is its place in the order of sending, not its time."""

    place: float
    event: dict[str, Any]
    organisation: Organisation


def rate_card_json() -> str:
    """Return the rate changes in the format of the service's RATE_CARD file."""
    return json.dumps(
        [
            {
                "usage_type": change.usage_type,
                "rate_millionths": change.millionths,
                "effective_from": change.effective_from.isoformat(),
            }
            for change in RATE_CHANGES
        ]
    )


class Traffic:
    """`organisations` and the `records` about them, in the order of sending."""

    def __init__(
        self, seed: int, *, messages: int, organisations: int, partitions: int = 8, in_the_middle: int = 5
    ) -> None:
        self._random = Random(seed)
        self._partitions = partitions
        self._flaws = cycle(self._random.sample(sorted(MALFORMED_ENCODERS), len(MALFORMED_ENCODERS)))
        self._numbers = 0
        self.organisations = [
            self._organisation(number, organisations, in_the_middle) for number in range(organisations)
        ]
        sent = self._reported(messages)
        self.records: Sequence[Outgoing] = self._with_trouble(sent, messages)

    def _organisation(self, number: int, count: int, in_the_middle: int) -> Organisation:
        opens = "at the start"
        if number >= count - 3:
            opens = "never"
        elif number >= count - 3 - in_the_middle:
            opens = "in the middle"
        zone = self._random.choice(ZONES)
        currency = "INR" if zone == "Asia/Kolkata" else "USD"
        return Organisation(f"org-{number}", zone, currency, self._random.choice((0, 200, 5_000)), opens)

    # ------------------------------------------------------------------------------ events

    def _reported(self, messages: int) -> list[_Sent]:
        """Return the events of all runs, each once, in the order of sending."""
        sent: list[_Sent] = []
        # A few organisations cause most of the traffic.
        weights = [1 / (number % 50 + 1) for number in range(len(self.organisations))]
        while len(sent) < messages:
            (organisation,) = self._random.choices(self.organisations, weights)
            sent += self._run(organisation, messages)
        return sorted(sent[:messages], key=lambda each: each.place)

    def _run(self, organisation: Organisation, messages: int) -> list[_Sent]:
        random = self._random
        happened_at = self._moment()
        usage_type = random.choice(sorted(PUBLISHED_MILLIONTHS))
        event_ids = [random.randrange(1, 6)] if random.random() < 0.9 else [random.randrange(1, 6), 6]
        run_id = f"run-{random.randrange(10**9)}"
        user = random.choice((None, {"id": f"u-{random.randrange(20)}"}))
        ai_search = random.random() < 0.8
        place = random.uniform(0, messages)
        sent = []
        for _ in range(random.choice((1, 1, 2, 3, 5, 8, 20))):
            place += random.expovariate(1 / 30)
            happened_at += timedelta(seconds=random.choice((0, 1, 7, 61, 3_600)))
            if random.random() < 0.02:
                usage_type = random.choice(sorted(PUBLISHED_MILLIONTHS))
            late = random.uniform(0, messages / 2) if random.random() < LATE else 0
            data = {
                "run_id": run_id,
                "usage_type": usage_type,
                "photos": random.choice((0, 1, 1, 3, 5, 5, 10, 17, 100, 999, 1_000_000)),
                "ai_search": ai_search,
                "event": self._photo_event(random.choice(event_ids)),
                "user": user,
                "hold_id": random.choice((None, None, None, "hold-1")),
            }
            sent.append(_Sent(place + late, self._event(organisation, happened_at, data), organisation))
        return sent

    def _moment(self) -> datetime:
        """Return the start of a run: often near the end of a month in some time zone."""
        if self._random.random() < 0.3:
            return self._random.choice(MONTH_ENDS) + timedelta(hours=self._random.uniform(-26, 26))
        return BEGINNING + timedelta(seconds=self._random.uniform(0, SPAN_S))

    def _photo_event(self, event_id: int) -> dict[str, Any]:
        spelling = self._random.choice(("", "", "", " 2026", " 🏃", " Ångström"))
        return {"id": event_id, "name": f"City Marathon {event_id}{spelling}"}

    def _event(
        self, organisation: Organisation, happened_at: datetime, data: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            **self._identity(),
            "type": "photo_processing.usage_reported.v1",
            "subject": organisation.id,
            "time": self._written(happened_at),
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c",  # extensions are ignored
            "data": data,
        }

    def _identity(self) -> dict[str, str]:
        """Return a new pair of source and id. Another source may use the same id."""
        self._numbers += 1
        number = self._numbers
        source = f"/photo-processing/worker-{number % SOURCES}"
        shape = self._random.random()
        if shape < 0.7:
            # A UUIDv7: its first six bytes are a time.
            text = f"{1_790_000_000_000 + number:012x}7{number % 4096:03x}8{number:015x}"
            message_id = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
        elif shape < 0.9:
            message_id = f"report {number // SOURCES}"
        else:
            message_id = f"отчёт-{number}"
        return {"id": message_id, "source": source}

    def _written(self, moment: datetime) -> str:
        """Return a moment in one of the forms of RFC 3339."""
        offset = self._random.choice((None, None, timedelta(hours=5, minutes=30), timedelta(hours=-7)))
        if offset is None:
            return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
        local = (moment + offset).replace(tzinfo=None).isoformat(timespec="milliseconds")
        sign, offset_s = (
            ("-", -offset.total_seconds()) if offset < timedelta() else ("+", offset.total_seconds())
        )
        return f"{local}{sign}{int(offset_s // 3_600):02d}:{int(offset_s % 3_600 // 60):02d}"

    # ------------------------------------------------------------------------------ records

    def _with_trouble(self, sent: Sequence[_Sent], messages: int) -> list[Outgoing]:
        """Return records of all events, mixed with repeats, conflicts and malformed ones."""
        random = self._random
        placed: list[tuple[float, int, Outgoing]] = []

        def put(place: float, parts: Parts, organisation: Organisation) -> None:
            placed.append((place, len(placed), self._record(parts, organisation)))

        for place, event, organisation in sent:
            put(place, self._encoded(event), organisation)
            if random.random() < REPEATED:
                far = random.random() < 0.5
                again_at = place + random.uniform(0, messages if far else 20)
                put(again_at, self._encoded(self._repeat(event)), organisation)
            if random.random() < CONFLICTING:
                put(place + random.uniform(0, 300), self._encoded(self._conflict(event)), organisation)
            if random.random() < MALFORMED:
                flaw, _ = MALFORMED_ENCODERS[next(self._flaws)]
                broken = copy.deepcopy(event) | self._identity()
                put(place, flaw(broken), organisation)
        for place, event, organisation in random.sample(sent, min(3, len(sent))):
            put(place, self._full_size(event), organisation)
        placed.sort()
        return [record for _, _, record in placed]

    def _record(self, parts: Parts, organisation: Organisation) -> Outgoing:
        return Outgoing(crc32(organisation.id.encode()) % self._partitions, *parts)

    def _encoded(self, event: dict[str, Any]) -> Parts:
        return binary(event) if self._random.random() < BINARY else structured(event)

    def _repeat(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return a repeat, sometimes with other values in fields that do not affect the charge."""
        again = copy.deepcopy(event)
        if self._random.random() < 0.3:
            again["data"]["event"]["name"] += " (again)"
            again["time"] = self._written(self._moment())
            again["data"]["user"] = {"id": "u-again"}
        return again

    def _conflict(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return a message with the same identity and other values."""
        other = copy.deepcopy(event)
        data = other["data"]
        match self._random.randrange(6):
            case 0:
                data["photos"] = (data["photos"] + 1) % 1_000_000
            case 1:
                data["run_id"] += "-other"
            case 2:
                data["ai_search"] = not data["ai_search"]
            case 3:
                data["event"]["id"] += 1
            case 4:
                others = sorted(PUBLISHED_MILLIONTHS.keys() - {data["usage_type"]})
                data["usage_type"] = self._random.choice(others)
            case _:
                other["subject"] = self._neighbour(other["subject"])
        return other

    def _neighbour(self, organisation_id: str) -> str:
        """Return another organisation of the same partition, so that the order is known."""
        partition = crc32(organisation_id.encode()) % self._partitions
        return self._random.choice(
            [
                each.id
                for each in self.organisations
                if each.id != organisation_id
                and each.opens == "at the start"
                and crc32(each.id.encode()) % self._partitions == partition
            ]
        )

    def _full_size(self, event: dict[str, Any]) -> Parts:
        """Return the record of a new message with the maximum size."""
        key, value, headers = structured(copy.deepcopy(event) | self._identity())
        assert value is not None
        return key, value + b" " * (FULL_SIZE_BYTES - len(value)), headers
