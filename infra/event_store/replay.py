"""Replays the log: rebuilds every organisation from its events alone, without snapshots or caches.

Audits compare balances, snapshots and projections with the result.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from domain.credits.organisation import Organisation
from domain.event_catalogue import NON_ORGANISATION_TOPICS, EventCodec
from domain.shared.aggregate import EventEnvelope
from infra.event_store.datastore import as_store_errors

_FETCH: Final = 5_000
_LOG: Final = """
    SELECT notification_id, originator_id, originator_version, topic, state
    FROM ledger.events ORDER BY notification_id
"""


class Replay(msgspec.Struct, frozen=True):
    """Organisations by stream at a position of the log, and the number of events up to it."""

    organisations: dict[UUID, Organisation]
    position: int
    events: int


def replay_log(connection: psycopg.Connection[Any], codec: EventCodec) -> Replay:
    """Apply all events of organisations in log order, from one snapshot of the database.

    Memory grows with the number of organisations, not with the log. The connection must be outside a
    transaction, or in one that may stay open for the whole replay.

    Raises:
        UnknownEventType: a newer version of the ledger wrote the log.
        InvariantViolation: a history has a gap, or its events are not in order.
        StoreUnavailable: the database cannot be reached.
    """
    organisations: dict[UUID, Organisation] = {}
    find, decode = organisations.get, codec.decode
    position = events = 0
    with as_store_errors(), connection.transaction(), psycopg.ServerCursor(connection, "replay") as cursor:
        cursor.execute(_LOG, binary=True)
        while rows := cursor.fetchmany(_FETCH):
            for _, stream, version, topic, state in rows:
                if topic in NON_ORGANISATION_TOPICS:
                    continue
                organisation = find(stream)
                if organisation is None:
                    organisation = organisations[stream] = Organisation(stream)
                EventEnvelope(stream, version, decode(topic, state)).mutate(organisation)
            position = rows[-1][0]
            events += len(rows)
    return Replay(organisations, position, events)
