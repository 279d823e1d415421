"""Builders of simulations for tests."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice

from infra.simulator.options import OrganisationTraffic, SimulatorOptions, Style
from infra.simulator.traffic import Traffic
from infra.simulator.wire import Outgoing

NOW = datetime(2026, 11, 22, 9, 15, tzinfo=UTC)

STRIDE = OrganisationTraffic("stride-photos", "Asia/Kolkata", Style.SPORTS)
LACE = OrganisationTraffic("lens-and-lace", "America/New_York", Style.WEDDINGS)
CAMPUS = OrganisationTraffic("campus-clicks", "Europe/London", Style.CAMPUS, (55, 60, 62, 11), 200)


def options(**changes: object) -> SimulatorOptions:
    settings: dict[str, object] = {"organisations": (STRIDE, LACE, CAMPUS), "process": "t0", **changes}
    return SimulatorOptions(**settings)  # type: ignore[arg-type]


def ticking(start: datetime = NOW, step: timedelta = timedelta(seconds=1)) -> Callable[[], datetime]:
    moments = (start + number * step for number in range(10**9))
    return lambda: next(moments)


def history(now: datetime = NOW, **changes: object) -> list[Outgoing]:
    return list(Traffic(options(**changes)).history(now))


def live(count: int, **changes: object) -> list[Outgoing]:
    return list(islice(Traffic(options(**changes)).live(ticking()), count))


def charged(records: Iterable[Outgoing]) -> list[Outgoing]:
    return [
        record
        for record in records
        if record.usage.usage_type in ("photo_processing", "ai_image_rotation") and record.usage.ai_search
    ]
