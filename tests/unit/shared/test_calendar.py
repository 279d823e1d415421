"""The calendar day of a moment in an organisation's zone, which determines its month."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest

from domain.shared.calendar import check_time_zone, local_day
from domain.shared.errors import InvalidInput


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("time_zone", "at", "day"),
    [
        pytest.param("Asia/Kolkata", "2026-12-31T23:59:59+05:30", "2026-12-31", id="last second of 2026"),
        pytest.param("Asia/Kolkata", "2026-12-31T23:59:59.999999+05:30", "2026-12-31", id="last microsecond"),
        pytest.param("Asia/Kolkata", "2027-01-01T00:00:00+05:30", "2027-01-01", id="first second of 2027"),
        pytest.param("Asia/Kolkata", "2026-12-31T18:29:59Z", "2026-12-31", id="the last second, said in UTC"),
        pytest.param("Asia/Kolkata", "2026-12-31T18:30:00Z", "2027-01-01", id="the first, said in UTC"),
        pytest.param("UTC", "2026-12-31T23:59:59+05:30", "2026-12-31", id="the same moment counts in UTC"),
        pytest.param("UTC", "2027-01-01T05:29:59+05:30", "2026-12-31", id="until UTC's own midnight"),
    ],
)
def test_new_years_eve_in_kolkata(time_zone: str, at: str, day: str) -> None:
    assert local_day(time_zone, moment(at)) == date.fromisoformat(day)


@pytest.mark.parametrize(
    ("at", "day"),
    [
        pytest.param("2026-03-08T04:59:59Z", "2026-03-07", id="midnight is at five before the change"),
        pytest.param("2026-03-08T05:00:00Z", "2026-03-08", id="the short day begins"),
        pytest.param("2026-03-08T06:59:59Z", "2026-03-08", id="01:59:59 EST"),
        pytest.param("2026-03-08T07:00:00Z", "2026-03-08", id="03:00:00 EDT"),
        pytest.param("2026-03-09T03:59:59Z", "2026-03-08", id="the short day ends an hour early"),
        pytest.param("2026-03-09T04:00:00Z", "2026-03-09", id="midnight is at four from now on"),
        pytest.param("2026-11-01T03:59:59Z", "2026-10-31", id="the last day of October"),
        pytest.param("2026-11-01T04:00:00Z", "2026-11-01", id="November begins, in EDT"),
        pytest.param("2026-11-01T05:30:00Z", "2026-11-01", id="01:30 EDT"),
        pytest.param("2026-11-01T06:30:00Z", "2026-11-01", id="01:30 EST, an hour later"),
        pytest.param("2026-11-02T04:59:59Z", "2026-11-01", id="the long day ends an hour late"),
        pytest.param("2026-11-02T05:00:00Z", "2026-11-02", id="midnight is at five again"),
    ],
)
def test_summer_time_in_new_york(at: str, day: str) -> None:
    assert local_day("America/New_York", moment(at)) == date.fromisoformat(day)


@pytest.mark.parametrize(
    ("time_zone", "midnight_utc"),
    [
        ("Asia/Kathmandu", "2026-06-30T18:15:00Z"),  # +05:45
        ("Pacific/Chatham", "2026-06-30T11:15:00Z"),  # +12:45
        ("Australia/Eucla", "2026-06-30T15:15:00Z"),  # +08:45
        ("America/St_Johns", "2026-07-01T02:30:00Z"),  # -02:30 in summer
        ("Pacific/Kiritimati", "2026-06-30T10:00:00Z"),  # +14
        ("Pacific/Pago_Pago", "2026-07-01T11:00:00Z"),  # -11
    ],
)
def test_midnight_at_odd_hours(time_zone: str, midnight_utc: str) -> None:
    midnight = moment(midnight_utc)
    assert local_day(time_zone, midnight - timedelta(microseconds=1)) == date(2026, 6, 30)
    assert local_day(time_zone, midnight) == date(2026, 7, 1)


def test_a_day_that_starts_twice() -> None:
    # Until 2011 Newfoundland set its clocks back at one minute past midnight, to the day before.
    assert local_day("America/St_Johns", moment("2005-10-30T02:30:30Z")) == date(2005, 10, 30)
    assert local_day("America/St_Johns", moment("2005-10-30T02:31:00Z")) == date(2005, 10, 29)
    assert local_day("America/St_Johns", moment("2005-10-30T03:30:00Z")) == date(2005, 10, 30)


def test_a_day_that_never_existed() -> None:
    # Samoa crossed the date line at the end of 29 December 2011.
    assert local_day("Pacific/Apia", moment("2011-12-30T09:59:59Z")) == date(2011, 12, 29)
    assert local_day("Pacific/Apia", moment("2011-12-30T10:00:00Z")) == date(2011, 12, 31)


@pytest.mark.parametrize(
    ("time_zone", "midnight_utc", "day"),
    [
        pytest.param("UTC", "1969-12-31T00:00:00Z", "1969-12-31", id="before 1970"),
        pytest.param("UTC", "1900-01-01T00:00:00Z", "1900-01-01", id="long before 1970"),
        pytest.param("Africa/Monrovia", "1971-06-01T00:44:30Z", "1971-06-01", id="-00:44:30"),
        pytest.param("Europe/Amsterdam", "1930-01-01T00:00:00Z", "1930-01-01", id="a zone merged since"),
        pytest.param("Asia/Kolkata", "1850-01-01T18:06:32Z", "1850-01-02", id="local mean time, +05:53:28"),
    ],
)
def test_long_ago(time_zone: str, midnight_utc: str, day: str) -> None:
    midnight, second = moment(midnight_utc), timedelta(seconds=1)
    zone = ZoneInfo(time_zone)
    assert local_day(time_zone, midnight) == date.fromisoformat(day)
    for at in (midnight - second, midnight, midnight + second):
        assert local_day(time_zone, at) == at.astimezone(zone).date()


CENTURY = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""The years that usage messages may have."""


def changes_of_offset(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[int]:
    """Yield each second since 1970 at which a zone changes its offset."""

    def offset_at(second: int) -> timedelta | None:
        return datetime.fromtimestamp(second, zone).utcoffset()

    week_s = 7 * 24 * 3_600  # no summer time was ever shorter than this step
    before = offset_at(int(start.timestamp()))
    for week in range(int(start.timestamp()), int(end.timestamp()), week_s):
        after = offset_at(week + week_s)
        if after != before:
            low, high = week, week + week_s
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset_at(middle) == before else (low, middle)
            yield high
        before = after


def test_no_zone_loses_a_second_of_the_century() -> None:
    """Check the seconds near every change of every zone's offset: there a quarter of an hour can have two
    days.
    """
    wrong = []
    for name in sorted(available_timezones() - {"localtime", "Factory"}):
        zone = ZoneInfo(name)
        for change in changes_of_offset(zone, *CENTURY):
            quarter = change // 900 * 900
            for second in {quarter - 1, quarter, change - 1, change, quarter + 899, quarter + 900}:
                at = datetime.fromtimestamp(second, zone)
                if local_day(name, at) != at.date():
                    wrong.append((name, at.isoformat()))
    assert wrong == []


def test_months_begin_at_midnight_in_every_zone() -> None:
    for name in sorted(available_timezones() - {"localtime", "Factory"}):
        zone = ZoneInfo(name)
        for month in range(1, 13):
            midnight = datetime(2026, month, 1, tzinfo=zone).astimezone(UTC)
            assert local_day(name, midnight) == date(2026, month, 1), name
            assert local_day(name, midnight - timedelta(microseconds=1)).month == (month - 2) % 12 + 1, name


@pytest.mark.parametrize("name", ["UTC", "Asia/Kolkata", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_iana_zones_are_accepted(name: str) -> None:
    assert check_time_zone(name) == name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("Asia/Calcuta", id="misspelt"),
        pytest.param("asia/kolkata", id="lower case"),
        pytest.param("America", id="a folder"),
        pytest.param("Asia/", id="a folder with its slash"),
        pytest.param("+05:30", id="an offset"),
        pytest.param("../zoneinfo/UTC", id="a path"),
        pytest.param("/etc/localtime", id="an absolute path"),
        pytest.param("zone.tab", id="a file that is no zone"),
        pytest.param("UTC\0", id="NUL"),
        pytest.param("\ud800", id="half a surrogate"),
        pytest.param("x" * 5_000, id="longer than any path"),
        pytest.param("localtime", id="whatever the machine's zone is"),
        pytest.param("Factory", id="not set"),
        pytest.param("posixrules", id="rules, not a place"),
        pytest.param("right/UTC", id="a clock that counts leap seconds"),
    ],
)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not an IANA time zone") as refusal:
        check_time_zone(name)
    assert refusal.value.field == "time_zone"
