"""What is usual for an organisation, from its latest runs: bounded, whatever the history."""

from __future__ import annotations

from typing import Final

import msgspec

from domain.identity import stream_id
from projections.reading import Connection, fetch

RUNS_LOOKED_AT: Final = 200
EVENTS_LOOKED_AT: Final = 10

_LATEST_RUNS: Final = """
    SELECT -credits AS credits, coalesce(event_ids, '{}') AS event_ids FROM projections.transactions
    WHERE stream = %(stream)s AND kind = 'usage'
    ORDER BY occurred_at DESC, reference DESC LIMIT %(limit)s
"""
_EVENT_TOTALS: Final = """
    SELECT credits FROM projections.event_totals
    WHERE stream = %(stream)s AND event_id = ANY(%(event_ids)s::bigint[])
"""


class Recent(msgspec.Struct, frozen=True):
    """Credits of the latest runs, newest first, and of each of the latest photo events in all."""

    run_credits: list[int]
    event_credits: list[int]


def recent(connection: Connection, organisation_id: str) -> Recent:
    """Return what the latest `RUNS_LOOKED_AT` runs and `EVENTS_LOOKED_AT` events used."""
    stream = stream_id(organisation_id)
    runs = fetch(connection, _LATEST_RUNS, stream=stream, limit=RUNS_LOOKED_AT)
    event_ids = list(dict.fromkeys(event_id for run in runs for event_id in run["event_ids"]))
    totals = fetch(connection, _EVENT_TOTALS, stream=stream, event_ids=event_ids[:EVENTS_LOOKED_AT])
    return Recent([run["credits"] for run in runs], [total["credits"] for total in totals])
