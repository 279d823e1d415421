"""Replays organisations one by one through the aggregate, and holds their snapshots against it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import tuple_row

from domain.aggregate import Event, Fact
from domain.catalogue import TOPICS_BESIDE_ORGANISATIONS, FactCodec
from domain.errors import InvariantBroken, LedgerError
from domain.facts import ChargeRefunded, OrganisationOpened, UsageCharged
from domain.organisation import Organisation, OrganisationSnapshot, evolve
from projections.findings import Difference, Finding
from projections.streaming import stream_rows

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]

REPLAY_ERRORS: Final = (LedgerError, AssertionError, IndexError, msgspec.DecodeError)
"""What a history raises that cannot have been written by the ledger."""

# Whatever snapshot there is of a version comes along with its event.
_EVENTS: Final = """
    SELECT originator_id, originator_version, event.notification_id, event.topic, event.state,
        snapshot.topic, snapshot.state
    FROM ledger.events AS event
    LEFT JOIN ledger.snapshots AS snapshot USING (originator_id, originator_version)
    WHERE event.topic <> ALL(%s)
    ORDER BY originator_id, originator_version
"""

_SNAPSHOTS_OF_NOTHING: Final = """
    SELECT originator_id, originator_version FROM ledger.snapshots AS snapshot
    WHERE NOT EXISTS (SELECT 1 FROM ledger.events AS event
        WHERE event.originator_id = snapshot.originator_id
            AND event.originator_version = snapshot.originator_version)
    ORDER BY originator_id, originator_version
"""

_codec: Final = FactCodec()


class Books(msgspec.Struct):
    """What the log says of an organisation, as far as each projection has read it."""

    organisation_id: str | None = None
    balance: int = 0
    version: int = 0
    charged: int = 0
    on_hold: int = 0
    statement_balance: int = 0
    statement_charged: int = 0
    findings: list[Finding] = []
    """About its snapshots, or why its events cannot be replayed."""
    replayed: bool = False


def replayed_books(
    connection: Connection, balance_position: int, statement_position: int
) -> Iterator[tuple[UUID, Books]]:
    """Add up every organisation's events, never holding many of them. Takes a connection in a transaction.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    events = stream_rows(connection, "organisation_events", _EVENTS, [list(TOPICS_BESIDE_ORGANISATIONS)])
    for stream, rows in groupby(events, key=itemgetter(0)):
        books = Books()
        try:
            _replay(books, stream, rows, balance_position, statement_position)
        except REPLAY_ERRORS as error:
            detail = str(error) or type(error).__name__
            books.findings.append(Finding("replay", stream, detail, books.organisation_id))
        yield stream, books


def snapshots_of_nothing(connection: Connection) -> Iterator[Finding]:
    """Return snapshots of versions that the log has not reached: they would be read once it has.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    cursor = connection.cursor(row_factory=tuple_row).execute(_SNAPSHOTS_OF_NOTHING)
    for stream, version in cursor:
        yield _snapshot_finding(stream, version, "a snapshot of a version that the log does not have")


def _replay(
    books: Books, stream: UUID, rows: Iterator[Row], balance_position: int, statement_position: int
) -> None:
    organisation: Organisation | None = None
    total = 0
    refundable: dict[int, int] = {}
    for _, version, position, topic, state, snapshot_topic, snapshot_state in rows:
        fact = _codec.decode(topic, state)
        if isinstance(fact, OrganisationOpened):
            books.organisation_id = fact.organisation_id
        organisation = evolve(organisation, Event(stream, version, fact))
        _check_fact(version, fact, refundable)
        charged = fact.credits if isinstance(fact, UsageCharged) else 0
        total += fact.balance_delta
        if position <= balance_position:
            books.balance, books.version, books.on_hold = total, version, organisation.on_hold
            books.charged += charged
        if position <= statement_position:
            books.statement_balance = total
            books.statement_charged += charged
        if snapshot_topic is not None:
            books.findings += _check_snapshot(organisation, snapshot_topic, snapshot_state)
    if organisation is not None:
        organisation.check_invariants()
        if organisation.balance != total:
            raise InvariantBroken(f"the balance is {organisation.balance}, its changes sum to {total}")
    books.replayed = True


def _check_fact(version: int, fact: Fact, refundable: dict[int, int]) -> None:
    """Check a charge against its draws, and a refund against what is left of its charge."""
    if isinstance(fact, UsageCharged):
        if sum(portion.credits for portion in fact.draws) + fact.overdraft != fact.credits:
            raise InvariantBroken(f"charge {version} does not draw its credits")
        refundable[version] = fact.credits
    elif isinstance(fact, ChargeRefunded):
        refundable[fact.charge] = refundable.get(fact.charge, 0) - fact.credits
        if refundable[fact.charge] < 0:
            raise InvariantBroken(f"refunds up to {version} exceed charge {fact.charge}")


def _check_snapshot(organisation: Organisation, topic: str, state: bytes) -> Iterator[Finding]:
    """Compare a snapshot with the organisation as its events made it, field by field."""
    stream, version, name = organisation.id, organisation.version, organisation.organisation_id
    try:
        found = _codec.decode(topic, state)
    except (LedgerError, msgspec.DecodeError) as error:
        yield _snapshot_finding(stream, version, f"it cannot be read: {error}", name)
        return
    if not isinstance(found, OrganisationSnapshot):
        yield _snapshot_finding(stream, version, f"it is {topic}, not a snapshot", name)
        return
    expected = organisation.snapshot().fact
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
