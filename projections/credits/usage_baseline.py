"""An organisation's usual usage, from a bounded number of its latest runs."""

from __future__ import annotations

from typing import Final

import msgspec

from domain.shared.stream_keys import stream_id
from projections.connection import Connection
from projections.query.sql import fetch

BASELINE_RUNS: Final = 200
BASELINE_EVENTS: Final = 10

_LATEST_RUNS: Final = """
    SELECT -credits AS credits, coalesce(event_ids, '{}') AS event_ids FROM projections.transactions
    WHERE stream = %(stream)s AND kind = 'usage'
    ORDER BY occurred_at DESC, reference DESC LIMIT %(limit)s
"""
_EVENT_TOTALS: Final = """
    SELECT credits FROM projections.event_totals
    WHERE stream = %(stream)s AND event_id = ANY(%(event_ids)s::bigint[])
"""


class UsageBaseline(msgspec.Struct, frozen=True):
    """Credits of the latest runs, newest first, and total credits of each of the latest photo events."""

    run_credits: list[int]
    event_credits: list[int]


def usage_baseline(connection: Connection, organisation_id: str) -> UsageBaseline:
    """Return the usage of the latest `BASELINE_RUNS` runs and `BASELINE_EVENTS` photo events."""
    stream = stream_id(organisation_id)
    runs = fetch(connection, _LATEST_RUNS, stream=stream, limit=BASELINE_RUNS)
    event_ids = list(dict.fromkeys(event_id for run in runs for event_id in run["event_ids"]))
    totals = fetch(connection, _EVENT_TOTALS, stream=stream, event_ids=event_ids[:BASELINE_EVENTS])
    return UsageBaseline([run["credits"] for run in runs], [total["credits"] for total in totals])
