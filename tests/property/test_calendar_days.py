"""Any accepted moment, in any zone, counts on the local calendar day."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given
from hypothesis import strategies as st

from domain.shared.calendar import local_day

zones = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"}))


@given(zone=zones, at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001
def test_a_day_is_the_zones_local_day(zone: str, at: datetime) -> None:
    moment = at.replace(tzinfo=UTC)
    assert local_day(zone, moment) == moment.astimezone(ZoneInfo(zone)).date()


@given(zone=zones, at=st.datetimes(datetime(1800, 1, 1), datetime(2000, 1, 1)))  # noqa: DTZ001
def test_days_of_local_mean_time_and_odd_offsets(zone: str, at: datetime) -> None:
    moment = at.replace(tzinfo=UTC)
    assert local_day(zone, moment) == moment.astimezone(ZoneInfo(zone)).date()


@given(zone=zones, at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), told_in=zones)  # noqa: DTZ001
def test_the_zone_of_a_moment_does_not_change_its_day(zone: str, at: datetime, told_in: str) -> None:
    moment = at.replace(tzinfo=UTC)
    assert local_day(zone, moment) == local_day(zone, moment.astimezone(ZoneInfo(told_in)))
