"""Any moment of the years the wire accepts, in any zone, counts on the day its people's calendars show."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given
from hypothesis import strategies as st

from domain.shared.calendar import local_day

zones = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"}))


@given(zone=zones, at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001
def test_a_day_is_what_the_zone_says(zone: str, at: datetime) -> None:
    moment = at.replace(tzinfo=UTC)
    assert local_day(zone, moment) == moment.astimezone(ZoneInfo(zone)).date()


@given(zone=zones, at=st.datetimes(datetime(1800, 1, 1), datetime(2000, 1, 1)))  # noqa: DTZ001
def test_so_were_days_of_local_mean_time_and_odd_seconds(zone: str, at: datetime) -> None:
    moment = at.replace(tzinfo=UTC)
    assert local_day(zone, moment) == moment.astimezone(ZoneInfo(zone)).date()


@given(zone=zones, at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), told_in=zones)  # noqa: DTZ001
def test_a_moment_counts_the_same_in_whichever_zone_it_is_told(zone: str, at: datetime, told_in: str) -> None:
    moment = at.replace(tzinfo=UTC)
    assert local_day(zone, moment) == local_day(zone, moment.astimezone(ZoneInfo(told_in)))
