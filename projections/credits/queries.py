"""Queries for credits: balance, month cards, photo events, days, holds, and the positions of projections.

Every function takes an open psycopg connection and works in any isolation level. It reads the rows and their
position in one statement, so a result is exact at its `position`. The cost of a call does not grow with the
history.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final

from msgspec import convert

from domain.credits.errors import HoldNotFound
from domain.shared.calendar import local_day
from domain.shared.errors import InvalidInput
from domain.shared.stream_keys import stream_id
from projections.connection import Connection
from projections.credits.holds import HoldStatus
from projections.credits.read_models import (
    Balance,
    DailyUsage,
    DayUsage,
    Hold,
    HoldList,
    MonthUsage,
    PhotoEventUsage,
    PhotoEventUsagePage,
    Positions,
    ProjectionPosition,
    UsageSummary,
)
from projections.credits.transaction_queries import transaction_charges, transactions
from projections.engine.event_log import log_end
from projections.query.cursors import PhotoEventCursor, decode_cursor, encode_cursor
from projections.query.sql import check_limit, fetch, fetch_of

__all__ = [
    "balance",
    "daily_usage",
    "event_usage",
    "hold",
    "holds",
    "positions",
    "transaction_charges",
    "transactions",
    "usage_summary",
]

MONTHS_MAX: Final = 36
DAYS_MAX: Final = 366


_BALANCE: Final = """
    SELECT organisation_id, balance, granted, purchased, refunded, charged, currency, price_millionths,
        plan, plan_expires_at, time_zone, opened_at, on_hold, version,
        (SELECT "position" FROM projections.positions WHERE projection = 'balance') AS "position"
    FROM projections.balances WHERE stream = %(stream)s
"""

_HOLDS: Final = """
    SELECT listed.*,
        (SELECT "position" FROM projections.positions WHERE projection = 'balance') AS "position"
    FROM projections.balances
    LEFT JOIN LATERAL (
        SELECT hold_id, run_id, status, mode, requested, credits, used, placed_at, expires_at, closed_at,
            version
        FROM projections.holds
        WHERE stream = %(stream)s
            AND (%(status)s::text IS NULL OR status = %(status)s)
            AND (%(hold_id)s::text IS NULL OR hold_id = %(hold_id)s)
        ORDER BY version DESC LIMIT %(limit)s
    ) AS listed ON true
    WHERE balances.stream = %(stream)s
    ORDER BY listed.version DESC
"""

_TIME_ZONE: Final = "SELECT time_zone FROM projections.balances WHERE stream = %(stream)s"

_MONTHS: Final = """
    SELECT requested.month, coalesce(card.credits, 0) AS credits, coalesce(card.runs, 0) AS runs,
        coalesce(card.photos, 0) AS photos,
        -- Usage without a photo event is stored under id 0, which is not counted.
        coalesce(card.events, 0) - (SELECT count(*) FROM projections.event_usage
            WHERE stream = %(stream)s AND month = requested.month AND event_id = 0) AS events,
        (SELECT coalesce(sum(credits), 0)::bigint FROM projections.usage_days
            WHERE stream = %(stream)s AND month = requested.month
            AND day <= requested.same_point) AS to_same_point,
        (SELECT "position" FROM projections.positions WHERE projection = 'statement') AS "position"
    FROM unnest(%(months)s::date[], %(same_points)s::date[]) AS requested (month, same_point)
    LEFT JOIN projections.usage_months AS card
        ON card.stream = %(stream)s AND card.month = requested.month AND card.month >= %(earliest)s
    ORDER BY requested.month DESC
"""

_DAYS: Final = """
    SELECT used.*,
        (SELECT "position" FROM projections.positions WHERE projection = 'statement') AS "position"
    FROM projections.balances
    LEFT JOIN LATERAL (
        SELECT day, sum(credits)::bigint AS credits, sum(photos)::bigint AS photos
        FROM projections.usage_days
        WHERE stream = %(stream)s AND day BETWEEN %(from_day)s AND %(to_day)s GROUP BY day
    ) AS used ON true
    WHERE balances.stream = %(stream)s
"""

_EVENTS: Final = """
    SELECT listed.*,
        (SELECT "position" FROM projections.positions WHERE projection = 'statement') AS "position"
    FROM projections.balances
    LEFT JOIN LATERAL (
        SELECT event_id, event_name, credits, photos, runs, first_occurred_at, last_occurred_at
        FROM projections.event_usage
        WHERE stream = %(stream)s AND month = %(month)s
            AND (credits, event_id) < (%(below_credits)s, %(below_event_id)s)
            AND event_id > 0  -- 0 stores usage without a photo event
        ORDER BY credits DESC, event_id DESC LIMIT %(limit)s
    ) AS listed ON true
    WHERE balances.stream = %(stream)s
    ORDER BY listed.credits DESC, listed.event_id DESC
"""

_EVENTS_OF_ALL_TIME: Final = _EVENTS.replace("projections.event_usage", "projections.event_totals").replace(
    "AND month = %(month)s", ""
)

_POSITIONS: Final = """
    SELECT projection, "position", generation, updated_at FROM projections.positions ORDER BY projection
"""

_FIRST_PAGE: Final = PhotoEventCursor(2**63 - 1, 2**63 - 1)


def balance(connection: Connection, organisation_id: str) -> Balance:
    """Return an organisation's balance and terms.

    Raises:
        OrganisationNotFound: no such organisation is projected.
    """
    (row,) = fetch_of(connection, organisation_id, _BALANCE)
    return convert(row, Balance)


def usage_summary(connection: Connection, organisation_id: str, months: int, now: datetime) -> UsageSummary:
    """Return the totals of the last `months` months (1 to 36), newest first. The first is that of `now`.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        InvalidInput: `months` is out of range.
    """
    if not 1 <= months <= MONTHS_MAX:
        raise InvalidInput("months", f"a summary has 1 to {MONTHS_MAX} months")
    (terms,) = fetch_of(connection, organisation_id, _TIME_ZONE)
    today = local_day(terms["time_zone"], now)
    requested = _months_up_to(today, months)
    rows = fetch(
        connection,
        _MONTHS,
        stream=stream_id(organisation_id),
        months=requested,
        earliest=requested[-1],
        same_points=[_same_point(month, today) for month in requested],
    )
    cards = [convert({**row, "current": row["month"] == requested[0]}, MonthUsage) for row in rows]
    return UsageSummary(terms["time_zone"], today, cards, rows[0]["position"])


def daily_usage(connection: Connection, organisation_id: str, from_day: date, to_day: date) -> DailyUsage:
    """Return every day from `from_day` to `to_day`, both included; at most 366.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        InvalidInput: the range is empty or too long.
    """
    count = (to_day - from_day).days + 1
    if not 1 <= count <= DAYS_MAX:
        raise InvalidInput("to_day", f"a range has 1 to {DAYS_MAX} days")
    rows = fetch_of(connection, organisation_id, _DAYS, from_day=from_day, to_day=to_day)
    used = {row["day"]: convert(row, DayUsage) for row in rows if row["day"]}
    days = [from_day + timedelta(days=number) for number in range(count)]
    return DailyUsage([used.get(day) or DayUsage(day, 0, 0) for day in days], rows[0]["position"])


def event_usage(
    connection: Connection, organisation_id: str, month: date | None, cursor: str | None, limit: int
) -> PhotoEventUsagePage:
    """Return a page of photo events, most expensive first, of a month or (None) of all time.

    An event whose usage grows between two page reads may move to a page that was already read.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        InvalidInput: `month` is not the first day of a month, the cursor belongs to another list, or `limit`
            is outside 1 to 500.
    """
    check_limit(limit)
    if month is not None and month.day != 1:
        raise InvalidInput("month", "a month is named by its first day")
    below = decode_cursor(cursor, PhotoEventCursor) if cursor else _FIRST_PAGE
    rows = fetch_of(
        connection,
        organisation_id,
        _EVENTS_OF_ALL_TIME if month is None else _EVENTS,
        month=month,
        below_credits=below.credits,
        below_event_id=below.event_id,
        limit=limit + 1,
    )
    events = [convert(row, PhotoEventUsage) for row in rows if row["event_id"] is not None]
    page, rest = events[:limit], events[limit:]
    next_cursor = encode_cursor(PhotoEventCursor(page[-1].credits, page[-1].event_id)) if rest else None
    return PhotoEventUsagePage(month, page, next_cursor, rows[0]["position"])


def holds(connection: Connection, organisation_id: str, status: HoldStatus | None, limit: int) -> HoldList:
    """Return the latest holds, of one status or (None) of any.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        InvalidInput: `limit` outside 1 to 500.
    """
    check_limit(limit)
    return _holds(connection, organisation_id, status, None, limit)


def hold(connection: Connection, organisation_id: str, hold_id: str) -> HoldList:
    """Return one hold.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        HoldNotFound: it has no hold of this id.
    """
    found = _holds(connection, organisation_id, None, hold_id, 1)
    if not found.holds:
        raise HoldNotFound(hold_id=hold_id)
    return found


def _holds(
    connection: Connection, organisation_id: str, status: HoldStatus | None, hold_id: str | None, limit: int
) -> HoldList:
    rows = fetch_of(
        connection,
        organisation_id,
        _HOLDS,
        status=None if status is None else status.value,
        hold_id=hold_id,
        limit=limit,
    )
    return HoldList([convert(row, Hold) for row in rows if row["hold_id"] is not None], rows[0]["position"])


def positions(connection: Connection) -> Positions:
    """Return the positions of all projections and the end of the log."""
    rows = fetch(connection, _POSITIONS)
    return Positions([convert(row, ProjectionPosition) for row in rows], log_end(connection))


def _months_up_to(today: date, count: int) -> list[date]:
    number = today.year * 12 + today.month - 1
    return [date(each // 12, each % 12 + 1, 1) for each in range(number, number - count, -1)]


def _same_point(month: date, today: date) -> date:
    """Return the same day of another month, or that month's last day if it is shorter."""
    month_end = (month + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return month_end if today.day > month_end.day else month.replace(day=today.day)
