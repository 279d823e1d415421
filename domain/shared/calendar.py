"""Months are calendar months in the organisation's IANA time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from domain.shared.errors import InvalidInput

_QUARTER_HOUR_S = 900  # in nearly all zones, midnight falls on a whole quarter of an hour


def check_time_zone(name: str) -> str:
    """Return the name if it is an IANA time zone.

    Raises:
        InvalidInput: no such zone.
    """
    if name not in _zone_names():
        raise InvalidInput("time_zone", f"{name!r} is not an IANA time zone such as Asia/Kolkata")
    return name


def local_day(time_zone: str, at: datetime) -> date:
    """Return the calendar day of a moment in a zone."""
    latest = _latest.get(time_zone)
    if latest is not None and latest[0] <= at < latest[1]:
        return latest[2]
    quarter_hour = int(at.timestamp() // _QUARTER_HOUR_S)
    day = _day_of_quarter_hour(time_zone, quarter_hour)
    if day is None:
        return at.astimezone(_zone(time_zone)).date()
    start = datetime.fromtimestamp(quarter_hour * _QUARTER_HOUR_S, UTC)
    _latest[time_zone] = (start, start + timedelta(seconds=_QUARTER_HOUR_S), day)
    return day


# Usage arrives in time order: most usage is in the same quarter of an hour as the usage before it.
_latest: dict[str, tuple[datetime, datetime, date]] = {}


@lru_cache(maxsize=65_536)
def _day_of_quarter_hour(time_zone: str, quarter_hour: int) -> date | None:
    """Return the day of a quarter of an hour, or None if the day or the offset changes within it."""
    zone, start_s = _zone(time_zone), quarter_hour * _QUARTER_HOUR_S
    first = datetime.fromtimestamp(start_s, zone)
    last = datetime.fromtimestamp(start_s + _QUARTER_HOUR_S - 1, zone)
    same = first.date() == last.date() and first.utcoffset() == last.utcoffset()
    return first.date() if same else None


@lru_cache(maxsize=1_024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    # Without the local machine's zone and the placeholder for "not set".
    return frozenset(available_timezones() - {"localtime", "Factory"})
