"""Replays the log: every organisation as its events alone make it, without snapshots or caches.

This is what audits hold balances, snapshots and projections against.
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
    """Organisations by stream, true at a position of the log, and how many events the log has."""

    organisations: dict[UUID, Organisation]
    position: int
    events: int


def replay_log(connection: psycopg.Connection[Any], codec: EventCodec) -> Replay:
    """Apply every event of organisations, as one snapshot of the database has it, in the order of the log.

    Memory grows with the number of organisations, not with the log. The connection must be outside of
    a transaction or in one that may read for as long as this takes.

    Raises:
        UnknownEventType: the log was written by a newer version of the ledger.
        InvariantViolation: a history has a gap, or its events are not in order.
        StoreUnavailable: the database cannot be reached.
    """
    organisations: dict[UUID, Organisation] = {}
    known, decode = organisations.get, codec.decode
    position = events = 0
    with as_store_errors(), connection.transaction(), psycopg.ServerCursor(connection, "replay") as cursor:
        cursor.execute(_LOG, binary=True)
        while rows := cursor.fetchmany(_FETCH):
            for _, stream, version, topic, state in rows:
                if topic in NON_ORGANISATION_TOPICS:
                    continue
                organisation = known(stream)
                if organisation is None:
                    organisation = organisations[stream] = Organisation(stream)
                EventEnvelope(stream, version, decode(topic, state)).mutate(organisation)
            position = rows[-1][0]
            events += len(rows)
    return Replay(organisations, position, events)
