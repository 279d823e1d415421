"""Replays organisations one by one through the aggregate, and compares their snapshots with the result."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg.rows import tuple_row

from domain.credits.events import ChargeRefunded, OrganisationOpened, UsageCharged
from domain.credits.organisation import Organisation, evolve
from domain.credits.organisation_state import OrganisationSnapshot
from domain.event_catalogue import NON_ORGANISATION_TOPICS, EventCodec
from domain.shared.aggregate import DomainEvent, EventEnvelope
from domain.shared.errors import InvariantViolation, LedgerError
from projections.audit.findings import Difference, Finding
from projections.audit.row_stream import stream_rows
from projections.connection import Connection

Row = tuple[Any, ...]

REPLAY_ERRORS: Final = (LedgerError, AssertionError, IndexError, msgspec.DecodeError)
"""Errors that the replay of a history raises if the ledger cannot have written it."""

# A row also contains the snapshot of the event's version, if there is one.
_EVENTS: Final = """
    SELECT originator_id, originator_version, event.notification_id, event.topic, event.state,
        snapshot.topic, snapshot.state
    FROM ledger.events AS event
    LEFT JOIN ledger.snapshots AS snapshot USING (originator_id, originator_version)
    WHERE event.topic <> ALL(%s)
    ORDER BY originator_id, originator_version
"""

_ORPHAN_SNAPSHOTS: Final = """
    SELECT originator_id, originator_version FROM ledger.snapshots AS snapshot
    WHERE NOT EXISTS (SELECT 1 FROM ledger.events AS event
        WHERE event.originator_id = snapshot.originator_id
            AND event.originator_version = snapshot.originator_version)
    ORDER BY originator_id, originator_version
"""

_codec: Final = EventCodec()


class ReplayedTotals(msgspec.Struct):
    """Totals of an organisation, computed from the log up to each projection's position."""

    organisation_id: str | None = None
    balance: int = 0
    version: int = 0
    charged: int = 0
    on_hold: int = 0
    statement_balance: int = 0
    statement_charged: int = 0
    findings: list[Finding] = []
    """Findings about its snapshots, or the reason why its events cannot be replayed."""
    replayed: bool = False


def replay_organisations(
    connection: Connection, balance_position: int, statement_position: int
) -> Iterator[tuple[UUID, ReplayedTotals]]:
    """Compute the totals of every organisation, with few events in memory at a time.

    Takes a connection in a transaction.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    events = stream_rows(connection, "organisation_events", _EVENTS, [list(NON_ORGANISATION_TOPICS)])
    for stream, rows in groupby(events, key=itemgetter(0)):
        totals = ReplayedTotals()
        try:
            _replay(totals, stream, rows, balance_position, statement_position)
        except REPLAY_ERRORS as error:
            detail = str(error) or type(error).__name__
            totals.findings.append(Finding("replay", stream, detail, totals.organisation_id))
        yield stream, totals


def orphan_snapshots(connection: Connection) -> Iterator[Finding]:
    """Return snapshots of versions that the log does not have yet: they would be used when it reaches them.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    cursor = connection.cursor(row_factory=tuple_row).execute(_ORPHAN_SNAPSHOTS)
    for stream, version in cursor:
        yield _snapshot_finding(stream, version, "a snapshot of a version that the log does not have")


def _replay(
    totals: ReplayedTotals, stream: UUID, rows: Iterator[Row], balance_position: int, statement_position: int
) -> None:
    organisation: Organisation | None = None
    total = 0
    refundable: dict[int, int] = {}
    for _, version, position, topic, state, snapshot_topic, snapshot_state in rows:
        event = _codec.decode(topic, state)
        if isinstance(event, OrganisationOpened):
            totals.organisation_id = event.organisation_id
        organisation = evolve(organisation, EventEnvelope(stream, version, event))
        _check_event(version, event, refundable)
        charged = event.credits if isinstance(event, UsageCharged) else 0
        total += event.balance_delta
        if position <= balance_position:
            totals.balance, totals.version, totals.on_hold = total, version, organisation.on_hold
            totals.charged += charged
        if position <= statement_position:
            totals.statement_balance = total
            totals.statement_charged += charged
        if snapshot_topic is not None:
            totals.findings += _check_snapshot(organisation, snapshot_topic, snapshot_state)
    if organisation is not None:
        organisation.check_invariants()
        if organisation.balance != total:
            raise InvariantViolation(f"the balance is {organisation.balance}, its changes sum to {total}")
    totals.replayed = True


def _check_event(version: int, event: DomainEvent, refundable: dict[int, int]) -> None:
    """Check a charge against its draws, and a refund against the unrefunded part of its charge."""
    if isinstance(event, UsageCharged):
        if sum(allocation.credits for allocation in event.draws) + event.overdraft != event.credits:
            raise InvariantViolation(f"charge {version} does not draw its credits")
        refundable[version] = event.credits
    elif isinstance(event, ChargeRefunded):
        refundable[event.charge] = refundable.get(event.charge, 0) - event.credits
        if refundable[event.charge] < 0:
            raise InvariantViolation(f"refunds up to {version} exceed charge {event.charge}")


def _check_snapshot(organisation: Organisation, topic: str, state: bytes) -> Iterator[Finding]:
    """Compare a snapshot with the replayed organisation, field by field."""
    stream, version, name = organisation.id, organisation.version, organisation.organisation_id
    try:
        found = _codec.decode(topic, state)
    except (LedgerError, msgspec.DecodeError) as error:
        yield _snapshot_finding(stream, version, f"it cannot be read: {error}", name)
        return
    if not isinstance(found, OrganisationSnapshot):
        yield _snapshot_finding(stream, version, f"it is {topic}, not a snapshot", name)
        return
    expected = organisation.snapshot().event
    if found != expected:
        columns = {
            field: Difference(getattr(found, field), getattr(expected, field))
            for field in found.__struct_fields__
            if getattr(found, field) != getattr(expected, field)
        }
        yield _snapshot_finding(stream, version, "it is not what the events make", name, columns)


def _snapshot_finding(
    stream: UUID,
    version: int,
    detail: str,
    organisation_id: str | None = None,
    columns: dict[str, Difference] | None = None,
) -> Finding:
    row = {"originator_id": str(stream), "originator_version": version}
    return Finding("snapshot", stream, detail, organisation_id, "ledger.snapshots", row, columns)
