"""Details of a photo event and of a run: the credits they used, and the lots these were drawn from.

The cost of a call does not grow with the history, as in `projections.credits.queries`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec import convert

from domain.shared.stream_keys import stream_id
from projections.connection import Connection
from projections.credits.read_models import (
    PhotoEventDetails,
    PhotoEventMonth,
    PhotoEventUsage,
    RunDetails,
    Transaction,
)
from projections.credits.transaction_queries import COLUMNS, transaction_charges, transaction_of
from projections.query.cursors import TransactionCursor, decode_cursor, encode_cursor
from projections.query.errors import PhotoEventNotFound
from projections.query.sql import check_limit, fetch, fetch_of

RUNS_SCANNED_MAX: Final = 2_000
"""The maximum number of multi-event runs that one page of an event's runs examines."""
_TIME_RESOLUTION: Final = timedelta(microseconds=1)

_TOTAL: Final = """
    SELECT total.*,
        (SELECT "position" FROM projections.positions WHERE projection = 'statement') AS "position"
    FROM projections.balances
    LEFT JOIN LATERAL (
        SELECT event_id, event_name, credits, photos, runs, first_occurred_at, last_occurred_at
        FROM projections.event_totals WHERE stream = %(stream)s AND event_id = %(event_id)s
    ) AS total ON true
    WHERE balances.stream = %(stream)s
"""

# Only months with a card are read: one look-up each, however many events they have.
_MONTHS: Final = """
    SELECT used.month, used.credits, used.photos, used.runs
    FROM projections.usage_months AS card
    CROSS JOIN LATERAL (
        SELECT month, credits, photos, runs FROM projections.event_usage
        WHERE stream = %(stream)s AND month = card.month AND event_id = %(event_id)s LIMIT 1
    ) AS used
    WHERE card.stream = %(stream)s
    ORDER BY used.month DESC
"""

# Nearly every run has one photo event and is found by it. Runs with several events are few: they are scanned.
_RUNS: Final = f"""
    WITH own AS (
        SELECT {COLUMNS} FROM projections.transactions
        WHERE stream = %(stream)s AND kind = 'usage' AND event_ids[1] = %(event_id)s
            AND (occurred_at, reference) < (%(before_time)s, %(before_reference)s)
        ORDER BY occurred_at DESC, reference DESC LIMIT %(limit)s
    ), looked AS MATERIALIZED (
        SELECT {COLUMNS}, transactions.event_ids[1] AS first_event_id FROM projections.transactions
        WHERE stream = %(stream)s AND kind = 'usage' AND cardinality(transactions.event_ids) > 1
            AND occurred_at >= %(first)s
            AND (occurred_at, reference) < (%(before_time)s, %(before_reference)s)
        ORDER BY occurred_at DESC, reference DESC LIMIT %(looked_at)s
    ), last AS (
        SELECT occurred_at AS last_time, reference AS last_reference
        FROM looked ORDER BY occurred_at DESC, reference DESC OFFSET %(looked_at)s::int - 1
    ), found AS (
        SELECT *, NULL AS first_event_id FROM own
        UNION ALL
        SELECT * FROM looked
        WHERE %(event_id)s = ANY(event_ids) AND first_event_id IS DISTINCT FROM %(event_id)s
    )
    SELECT last.*, found.* FROM (SELECT) AS always
    LEFT JOIN last ON true
    LEFT JOIN found ON last_time IS NULL OR (occurred_at, reference) >= (last_time, last_reference)
    ORDER BY found.occurred_at DESC, found.reference DESC LIMIT %(limit)s
"""  # noqa: S608 - of constants

_RUN: Final = f"""
    SELECT {COLUMNS} FROM projections.transactions
    WHERE stream = %(stream)s AND kind = 'usage' AND reference = %(run_id)s
"""  # noqa: S608

_LOTS: Final = f"""
    SELECT {COLUMNS} FROM projections.transactions
    WHERE stream = %(stream)s AND kind = 'addition' AND reference = ANY(%(references)s)
"""  # noqa: S608


def event_details(
    connection: Connection, organisation_id: str, event_id: int, cursor: str | None, limit: int
) -> PhotoEventDetails:
    """Return a photo event and a page of its runs.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        PhotoEventNotFound: it has no usage of this event.
        InvalidInput: the cursor belongs to another list, or `limit` is outside 1 to 500.
    """
    check_limit(limit)
    (row,) = fetch_of(connection, organisation_id, _TOTAL, event_id=event_id)
    if row["event_id"] is None:
        raise PhotoEventNotFound(event_id=event_id)
    total = convert(row, PhotoEventUsage)
    stream = stream_id(organisation_id)
    months = fetch(connection, _MONTHS, stream=stream, event_id=event_id)
    runs, next_cursor = _runs(connection, organisation_id, total, cursor, limit)
    return PhotoEventDetails(
        total, [convert(each, PhotoEventMonth) for each in months], runs, next_cursor, row["position"]
    )


def _runs(
    connection: Connection, organisation_id: str, total: PhotoEventUsage, cursor: str | None, limit: int
) -> tuple[list[Transaction], str | None]:
    before: tuple[datetime, str] = (total.last_occurred_at + _TIME_RESOLUTION, "")
    if cursor:
        after = decode_cursor(cursor, TransactionCursor)
        before = (after.occurred_at, after.reference)
    rows = fetch(
        connection,
        _RUNS,
        stream=stream_id(organisation_id),
        event_id=total.event_id,
        first=total.first_occurred_at,
        before_time=before[0],
        before_reference=before[1],
        looked_at=RUNS_SCANNED_MAX,
        limit=limit + 1,
    )
    found = [transaction_of(row) for row in rows if row["reference"] is not None]
    if len(found) > limit:
        last = found[limit - 1]
        return found[:limit], encode_cursor(TransactionCursor(last.occurred_at, last.kind, last.reference))
    if rows[0]["last_time"] is not None:
        looked_to = TransactionCursor(rows[0]["last_time"], "usage", rows[0]["last_reference"])
        return found, encode_cursor(looked_to)
    return found, None


def run_details(
    connection: Connection, organisation_id: str, run_id: str, cursor: str | None, limit: int
) -> RunDetails:
    """Return a run, a page of its charges, and the additions that paid for these charges.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        RunNotFound: the organisation has no usage of this run.
        InvalidInput: the cursor belongs to another list, or `limit` is outside 1 to 500.
    """
    page = transaction_charges(connection, organisation_id, run_id, cursor, limit)
    (row,) = fetch(connection, _RUN, stream=stream_id(organisation_id), run_id=run_id)
    numbers = {allocation.lot for charge in page.charges for allocation in charge.draws}
    return RunDetails(
        transaction_of(row),
        page.charges,
        additions_by_lot(connection, organisation_id, numbers),
        page.next_cursor,
        page.position,
    )


def additions_by_lot(
    connection: Connection, organisation_id: str, numbers: set[int]
) -> dict[int, Transaction]:
    """Return the additions that opened the lots of these charges, by lot number."""
    rows = fetch(
        connection, _LOTS, stream=stream_id(organisation_id), references=[str(number) for number in numbers]
    )
    return {int(row["reference"]): transaction_of(row) for row in rows}
