"""What a simulation is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from infra.simulator.credit_checks import CreditChecks

USAGE_TOPIC: Final = "photo-processing.usage.v1"
CHUNK_PHOTOS_MIN: Final = 5
CHUNK_PHOTOS_MAX: Final = 500


class Style(StrEnum):
    """What an organisation photographs; it decides the names, the sizes and the rhythm of its events."""

    SPORTS = "sports"
    WEDDINGS = "weddings"
    CAMPUS = "campus"


@dataclass(frozen=True, slots=True)
class OrganisationTraffic:
    """An organisation whose runs are simulated.

    `history_credits` fixes the credits of each month of history, the oldest first and the running month
    last; None leaves them to the events. Live traffic stops spending when history and it have used
    `credits_max` together: the simulated pipeline then goes on with AI search off. None: no limit.
    """

    id: str
    time_zone: str
    style: Style
    history_credits: tuple[int, int, int, int] | None = None
    credits_max: int | None = None


@dataclass(frozen=True, slots=True)
class FaultRates:
    """What goes wrong between a pipeline and its ledger, each as a share of the messages, 0 to 1.

    `repeated` messages are sent again, some at once and some much later; `out_of_order` ones are
    overtaken; `late` is the share of live runs that happened days or weeks ago; `conflicting` ones repeat
    an id with another body; `malformed` ones break the contract. `binary` is the share of messages sent in
    CloudEvents binary mode, which disturbs nobody.
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
                raise ValueError(f"{name} is a share of the messages, from 0 to 1")


NO_FAULTS: Final = FaultRates(repeated=0, out_of_order=0, late=0)
MANY_FAULTS: Final = FaultRates(repeated=0.08, out_of_order=0.1, late=0.05, conflicting=0.01, malformed=0.02)


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """A simulation: for whom, how fast, how badly.

    `live_per_second` 0 ends it after the history. `live_chunk_photos_max` bounds the photos of a live
    message, and so how fast live traffic spends. With a `credit_checks`, live runs take holds, and pause where there
    are no credits; `credits_max` then means nothing. `process` names this process: it tells its run and
    message ids from those of any other, and is drawn at random when left out.
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
            raise ValueError("a simulation needs at least one organisation, each once")
        if self.live_per_second < 0:
            raise ValueError("live_per_second is 0 or more")
        if not 2 * CHUNK_PHOTOS_MIN <= self.live_chunk_photos_max <= CHUNK_PHOTOS_MAX:
            raise ValueError(f"live_chunk_photos_max is {2 * CHUNK_PHOTOS_MIN} to {CHUNK_PHOTOS_MAX}")
