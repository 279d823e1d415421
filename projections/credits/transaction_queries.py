"""Queries for the list of transactions, and for the single charges of a run."""

from __future__ import annotations

from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import convert

from domain.credits.events import UsageCharged, is_billable
from domain.event_catalogue import EventCodec
from domain.shared.stream_keys import stream_id
from projections.connection import Connection
from projections.credits.read_models import (
    Charge,
    ChargePage,
    Transaction,
    TransactionKind,
    TransactionPage,
)
from projections.query.cursors import ChargeCursor, TransactionCursor, decode_cursor, encode_cursor
from projections.query.errors import RunNotFound
from projections.query.sql import Row, check_limit, fetch, fetch_of

VERSIONS_PER_PAGE: Final = 2_000
"""The maximum number of the organisation's events that one page of charges examines."""

COLUMNS: Final = """
    kind, reference, type, credits, occurred_at, recorded_at, actor, month, photos,
    coalesce(usage_types, '{}') AS usage_types, array_remove(coalesce(event_ids, '{}'), 0) AS event_ids,
    CASE WHEN event_ids[1] > 0 THEN event_name ELSE (
        SELECT event_name FROM projections.event_totals AS named
        WHERE named.stream = transactions.stream AND named.event_id = (array_remove(event_ids, 0))[1]
    ) END AS event_name,
    first_version, last_version, details
"""
"""Columns of `projections.transactions` that `transaction_of` needs.

Event id 0 means none: the run, or its settlement, has no photo event.
"""

# Each kind is a range of the list's index. The newest of both kinds are merged, without a third index.
_TRANSACTIONS: Final = f"""
    SELECT listed.*,
        (SELECT "position" FROM projections.positions WHERE projection = 'statement') AS "position"
    FROM projections.balances
    LEFT JOIN LATERAL (
        SELECT one_kind.*
        FROM unnest(%(kinds)s::text[], %(before_times)s::timestamptz[], %(before_references)s::text[])
            AS requested (kind, before_time, before_reference)
        CROSS JOIN LATERAL (
            SELECT {COLUMNS}
            FROM projections.transactions
            WHERE stream = %(stream)s AND kind = requested.kind
                AND (occurred_at, reference) < (requested.before_time, requested.before_reference)
            ORDER BY occurred_at DESC, reference DESC LIMIT %(limit)s
        ) AS one_kind
        ORDER BY occurred_at DESC, kind DESC, reference DESC LIMIT %(limit)s
    ) AS listed ON true
    WHERE balances.stream = %(stream)s
    ORDER BY listed.occurred_at DESC, listed.kind DESC, listed.reference DESC
"""  # noqa: S608 - of constants

_RUN: Final = """
    SELECT (SELECT "position" FROM projections.positions WHERE projection = 'statement') AS "position",
        run.first_version, run.last_version
    FROM projections.balances
    LEFT JOIN projections.transactions AS run
        ON run.stream = %(stream)s AND run.kind = 'usage' AND run.reference = %(run_id)s
    WHERE balances.stream = %(stream)s
"""

_CHARGES: Final = """
    SELECT originator_version, topic, state FROM ledger.events_in_sight
    WHERE originator_id = %(stream)s AND originator_version BETWEEN %(first)s AND %(last)s
        AND position(%(run)s IN state) > 0
    ORDER BY originator_version
"""

_END_OF_TIME: Final = datetime(MAXYEAR, 12, 31, tzinfo=UTC)
_TIME_RESOLUTION: Final = timedelta(microseconds=1)

_codec: Final = EventCodec()


def transactions(
    connection: Connection,
    organisation_id: str,
    kind: TransactionKind | None,
    cursor: str | None,
    limit: int,
) -> TransactionPage:
    """Return a page of runs and additions (one kind or both), newest first.

    A run may appear twice if a late message moves it back in time between two page reads.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        InvalidInput: the cursor belongs to another list, or `limit` is outside 1 to 500.
    """
    check_limit(limit)
    kinds = [kind] if kind else list(TransactionKind)
    after = decode_cursor(cursor, TransactionCursor) if cursor else None
    befores = [_before(after, each) for each in kinds]
    rows = fetch_of(
        connection,
        organisation_id,
        _TRANSACTIONS,
        kinds=[each.value for each in kinds],
        before_times=[time for time, _ in befores],
        before_references=[reference for _, reference in befores],
        limit=limit + 1,
    )
    listed = [transaction_of(row) for row in rows if row["kind"] is not None]
    page, rest = listed[:limit], listed[limit:]
    next_cursor = None
    if rest:
        last = page[-1]
        next_cursor = encode_cursor(TransactionCursor(last.occurred_at, last.kind, last.reference))
    return TransactionPage(page, next_cursor, rows[0]["position"])


def transaction_charges(
    connection: Connection, organisation_id: str, run_id: str, cursor: str | None, limit: int
) -> ChargePage:
    """Return a page of the single charges of a run, in ledger order.

    Raises:
        OrganisationNotFound: no such organisation is projected.
        RunNotFound: the organisation has no usage of this run.
        InvalidInput: the cursor belongs to another list, or `limit` is outside 1 to 500.
    """
    check_limit(limit)
    (run,) = fetch_of(connection, organisation_id, _RUN, run_id=run_id)
    position, first, last = run["position"], run["first_version"], run["last_version"]
    if first is None:
        raise RunNotFound(run_id=run_id)
    if cursor:
        first = max(first, decode_cursor(cursor, ChargeCursor).version)
    until = min(last, first + VERSIONS_PER_PAGE - 1)
    charges: list[Charge] = []
    stream = stream_id(organisation_id)
    written = msgspec.json.encode(run_id)  # as it is stored in the run's events
    for row in fetch(connection, _CHARGES, stream=stream, first=first, last=until, run=written):
        version, event = row["originator_version"], _codec.decode(row["topic"], row["state"])
        if isinstance(event, UsageCharged) and event.run_id == run_id and is_billable(event):
            if len(charges) == limit:
                return ChargePage(charges, encode_cursor(ChargeCursor(version)), position)
            charges.append(_charge(version, event))
    next_cursor = encode_cursor(ChargeCursor(until + 1)) if until < last else None
    return ChargePage(charges, next_cursor, position)


def _before(after: TransactionCursor | None, kind: TransactionKind) -> tuple[datetime, str]:
    """Return a time and reference that all transactions of a kind on the next page sort before.

    The list is ordered by time, kind and reference, descending. At the cursor's own time, lower kinds are
    still to come and higher kinds are not. No reference sorts before the empty one.
    """
    if after is None:
        return (_END_OF_TIME, "")
    if kind == after.kind:
        return (after.occurred_at, after.reference)
    return (after.occurred_at + _TIME_RESOLUTION if kind < after.kind else after.occurred_at, "")


def transaction_of(row: Row) -> Transaction:
    """Convert a row with `COLUMNS` to a transaction."""
    details = row["details"]
    return convert({**row, "details": details and msgspec.json.decode(details)}, Transaction)


def _charge(version: int, event: UsageCharged) -> Charge:
    return Charge(
        version,
        event.occurred_at,
        event.recorded_at,
        event.day,
        event.usage_type,
        event.photos,
        event.rate_millionths,
        event.credits,
        event.event_id or None,
        event.event_name if event.event_id else None,
        event.actor,
        event.hold_id,
        event.settled,
        event.from_hold,
        event.beyond_hold,
        event.draws,
        event.overdraft,
    )
