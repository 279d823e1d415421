"""Checks of the database after a case: a fast but wrong result does not count."""

from __future__ import annotations

from typing import Any, Final

import psycopg

_CHARGED: Final = """
    SELECT count(*), coalesce(sum((convert_from(state, 'UTF8')::json ->> 9)::bigint), 0)
    FROM ledger.events WHERE topic = 'usage_charged.v1' AND notification_id > %s
"""
_PROJECTED: Final = """
    SELECT (SELECT sum(charged)::bigint FROM projections.balances),
           (SELECT -sum(credits)::bigint FROM projections.transactions WHERE kind = 'usage'),
           (SELECT sum(credits)::bigint FROM projections.usage_months),
           (SELECT sum(credits)::bigint FROM projections.usage_days),
           (SELECT sum(credits)::bigint FROM projections.event_totals)
"""


class WrongResult(Exception):
    """The database does not hold what the case should have written."""


def must_equal(what: str, found: Any, expected: Any) -> None:
    """Raise WrongResult unless two values are the same."""
    if found != expected:
        raise WrongResult(f"{what}: found {found!r}, expected {expected!r}")


def log_end(conninfo: str) -> int:
    """Return the position of the last event."""
    return int(fetch_row(conninfo, "SELECT coalesce(max(notification_id), 0) FROM ledger.events")[0])


def check_charges(conninfo: str, charges: int, credits_count: int, *, after: int = 0) -> None:
    """Check the number of charges in the log after a position, and their total credits.

    The unique index on their keys guarantees that there are no duplicates.
    """
    found = fetch_row(conninfo, _CHARGED, (after,))
    must_equal("charges and their credits in the log", tuple(map(int, found)), (charges, credits_count))


def check_position(conninfo: str, topic: str, next_offsets: int) -> None:
    """Check the sum of the consumer's positions on all partitions."""
    found = fetch_row(
        conninfo, "SELECT sum(next_offset)::bigint FROM ledger.consumer_positions WHERE topic = %s", (topic,)
    )
    must_equal(f"position on {topic}", found, (next_offsets,))


def check_projections(conninfo: str, credits_count: int) -> None:
    """Check that every table of usage sums to the same credits."""
    found = fetch_row(conninfo, _PROJECTED)
    must_equal("credits in each projection", found, (credits_count,) * len(found))


def fetch_row(conninfo: str, query: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """Return the one row of a query."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row
