"""The options of a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from infra.simulator.credit_checks import CreditChecks

USAGE_TOPIC: Final = "photo-processing.usage.v1"
CHUNK_PHOTOS_MIN: Final = 5
CHUNK_PHOTOS_MAX: Final = 500


class Style(StrEnum):
    """The kind of photo events of an organisation. It decides their names, sizes and frequency."""

    SPORTS = "sports"
    WEDDINGS = "weddings"
    CAMPUS = "campus"


@dataclass(frozen=True, slots=True)
class OrganisationTraffic:
    """An organisation whose runs are simulated.

    `history_credits` fixes the credits used in each month of the history, from the oldest to the current
    month. With None they depend on the photo events. `credits_max` limits the credits of history and live
    traffic together: at the limit, live runs continue without AI search. None means no limit.
    """

    id: str
    time_zone: str
    style: Style
    history_credits: tuple[int, int, int, int] | None = None
    credits_max: int | None = None


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Rates of faults, each as a share of the messages from 0 to 1.

    - `repeated`: sent again, at once or much later.
    - `out_of_order`: sent after later messages.
    - `late`: share of live runs whose time is days or weeks ago.
    - `conflicting`: sent again with the same id and another body.
    - `malformed`: invalid for the consumer.
    - `binary`: sent in CloudEvents binary mode, which is valid.
    """

    repeated: float = 0.02
    out_of_order: float = 0.03
    late: float = 0.02
    conflicting: float = 0.0
    malformed: float = 0.0
    binary: float = 0.2

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1")


NO_FAULTS: Final = FaultRates(repeated=0, out_of_order=0, late=0)
MANY_FAULTS: Final = FaultRates(repeated=0.08, out_of_order=0.1, late=0.05, conflicting=0.01, malformed=0.02)


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """The options: organisations, speed, fault rates.

    With `live_per_second` 0 the simulation ends after the history. `live_chunk_photos_max` limits the photos
    of a live message, and so how fast live traffic spends credits. With `credit_checks`, live runs place
    holds and pause without credits; `credits_max` is then ignored. `process` names this process and makes its
    run and message ids unique. By default it is random.
    """

    organisations: tuple[OrganisationTraffic, ...]
    topic: str = USAGE_TOPIC
    seed: int = 1
    history: bool = True
    live_per_second: float = 1.0
    live_messages_max: int | None = None
    live_chunk_photos_max: int = 60
    fault_rates: FaultRates = field(default_factory=FaultRates)
    store_originals_rate_millionths: int = 0
    credit_checks: CreditChecks | None = None
    process: str | None = None
    drain_seconds: float = 5.0

    def __post_init__(self) -> None:
        ids = [organisation.id for organisation in self.organisations]
        if not ids or len(set(ids)) != len(ids):
            raise ValueError("a simulation needs one or more organisations with different ids")
        if self.live_per_second < 0:
            raise ValueError("live_per_second must be 0 or more")
        if not 2 * CHUNK_PHOTOS_MIN <= self.live_chunk_photos_max <= CHUNK_PHOTOS_MAX:
            raise ValueError(f"live_chunk_photos_max must be {2 * CHUNK_PHOTOS_MIN} to {CHUNK_PHOTOS_MAX}")
