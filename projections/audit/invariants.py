"""Checks that the data of a live system is consistent. An operator's command runs them: they read everything.

The log is replayed through the aggregate, and SQL sums the projected tables. Neither shares code with the
projections that are checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg.rows import tuple_row

from domain.credits.events import OrganisationOpened
from domain.event_catalogue import EventCodec
from domain.shared.errors import UnknownEventType
from projections.audit.findings import Finding, limit_per_check
from projections.audit.history_replay import orphan_snapshots, replay_organisations
from projections.audit.invoice_checks import check_invoices
from projections.audit.payment_checks import check_flags, check_payments
from projections.audit.row_stream import stream_rows
from projections.connection import Connection

Row = tuple[Any, ...]

# Read locks: no rebuild swaps tables between the first and the last read. They are taken before the database
# snapshot, because a snapshot does not contain rows that are swapped in later.
_LOCK: Final = """
    LOCK TABLE projections.positions, projections.balances, projections.holds, projections.payments,
        projections.payment_flags, projections.billing, projections.auto_top_ups, projections.transactions,
        projections.usage_months, projections.usage_days,
        projections.event_usage, projections.event_totals IN ACCESS SHARE MODE
"""

_NAMES: Final = """
    SELECT originator_id, topic, state FROM ledger.events
    WHERE originator_id = ANY(%s) AND originator_version = 1
"""

_BALANCES: Final = """
    SELECT stream, balance, granted + purchased + refunded - charged, charged, version, on_hold,
        (SELECT coalesce(sum(credits - used), 0)::bigint FROM projections.holds
            WHERE holds.stream = balances.stream AND status = 'open')
    FROM projections.balances ORDER BY stream
"""

_STATEMENT_SUMS: Final = """
    SELECT stream, sum(credits)::bigint,
        coalesce(-sum(credits) FILTER (WHERE kind = 'usage'), 0)::bigint
    FROM projections.transactions GROUP BY stream ORDER BY stream
"""

# The totals of a month, computed in four ways.
_MONTHS: Final = """
    SELECT stream, month,
        card.credits, rows.credits, days.credits, attribution.credits,
        card.photos, rows.photos, days.photos, attribution.photos,
        card.runs, rows.runs, card.events, attribution.events
    FROM projections.usage_months AS card
    FULL JOIN (SELECT stream, month, -sum(credits)::bigint AS credits, sum(photos)::bigint AS photos,
            count(*) AS runs
        FROM projections.transactions WHERE kind = 'usage' GROUP BY stream, month) AS rows
        USING (stream, month)
    FULL JOIN (SELECT stream, month, sum(credits)::bigint AS credits, sum(photos)::bigint AS photos
        FROM projections.usage_days GROUP BY stream, month) AS days
        USING (stream, month)
    FULL JOIN (SELECT stream, month, sum(credits)::bigint AS credits, sum(photos)::bigint AS photos,
            count(*) AS events
        FROM projections.event_usage GROUP BY stream, month) AS attribution
        USING (stream, month)
    WHERE (card.credits, card.credits, card.credits) IS DISTINCT FROM
            (rows.credits, days.credits, attribution.credits)
        OR (card.photos, card.photos, card.photos) IS DISTINCT FROM
            (rows.photos, days.photos, attribution.photos)
        OR (card.runs, card.events) IS DISTINCT FROM (rows.runs, attribution.events)
"""

_EVENT_TOTALS: Final = """
    SELECT stream, event_id, total.credits, months.credits, total.photos, months.photos,
        total.runs, months.runs
    FROM projections.event_totals AS total
    FULL JOIN (SELECT stream, event_id, sum(credits)::bigint AS credits, sum(photos)::bigint AS photos,
            sum(runs)::bigint AS runs
        FROM projections.event_usage GROUP BY stream, event_id) AS months
        USING (stream, event_id)
    WHERE (total.credits, total.photos, total.runs) IS DISTINCT FROM
        (months.credits, months.photos, months.runs)
"""

_codec: Final = EventCodec()


def check(connection: Connection) -> list[Finding]:
    """Return all inconsistencies; an empty list if there are none. The connection must be in autocommit mode.

    Each check returns a limited number of findings and counts the others. Memory does not grow with the data.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(_LOCK)
        positions: dict[str, int] = dict(
            _rows(connection, 'SELECT projection, "position" FROM projections.positions')
        )
        found = limit_per_check(
            chain(
                _check_positions(connection, positions),
                _check_against_log(connection, positions.get("balance", 0), positions.get("statement", 0)),
                orphan_snapshots(connection),
                _check_months(connection),
                _check_event_totals(connection),
                check_payments(connection, positions.get("payments", 0)),
                check_flags(connection, positions.get("payment_flags", 0)),
                check_invoices(connection),
            )
        )
        return _with_organisation_ids(connection, found)


def _with_organisation_ids(connection: Connection, found: list[Finding]) -> list[Finding]:
    """Return the findings with their organisation ids, where the log has them."""
    streams = list({finding.stream for finding in found if finding.stream and not finding.organisation_id})
    names: dict[UUID | None, str] = {}
    cursor = connection.cursor(row_factory=tuple_row)
    for stream, topic, state in cursor.execute(_NAMES, [streams]):
        with suppress(UnknownEventType, msgspec.DecodeError):
            event = _codec.decode(topic, state)
            if isinstance(event, OrganisationOpened):
                names[stream] = event.organisation_id
    return [
        msgspec.structs.replace(finding, organisation_id=finding.organisation_id or names.get(finding.stream))
        for finding in found
    ]


def _check_positions(connection: Connection, positions: dict[str, int]) -> Iterator[Finding]:
    ((end,),) = _rows(connection, "SELECT coalesce(max(notification_id), 0) FROM ledger.events")
    for projection, position in positions.items():
        if position > end:
            yield Finding("position", None, f"{projection} is at {position}, the log ends at {end}")


def _check_against_log(
    connection: Connection, balance_position: int, statement_position: int
) -> Iterator[Finding]:
    balances = _SortedRows(stream_rows(connection, "balances", _BALANCES))
    statements = _SortedRows(stream_rows(connection, "statements", _STATEMENT_SUMS))
    for stream, totals in replay_organisations(connection, balance_position, statement_position):
        balance = balances.row_of(stream) or [0, 0, 0, 0, 0, 0]
        statement = statements.row_of(stream) or [0, 0]
        yield from totals.findings
        if not totals.replayed:
            continue
        expected = [
            totals.balance,
            totals.balance,
            totals.charged,
            totals.version,
            totals.on_hold,
            totals.on_hold,
        ]
        if balance != expected:
            names_of = "balance, kinds, charged, version, on hold, open holds"
            yield Finding("balance", stream, f"{names_of}: {balance}, log: {expected}")
        expected = [totals.statement_balance, totals.statement_charged]
        if statement != expected:
            yield Finding("statement", stream, f"balance, charged: {statement}, log: {expected}")
    for stream in {*balances.others(), *statements.others()}:
        yield Finding("log", stream, "rows of an organisation that the log does not have")


class _SortedRows:
    """Rows sorted by stream. The caller must ask for streams in the same order: only one row is in memory."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)
        self._others: list[UUID] = []

    def row_of(self, stream: UUID) -> list[Any] | None:
        """Return the row of a stream without the stream, None if there is none."""
        while self._next is not None and self._next[0] <= stream:
            found, self._next = self._next, next(self._rows, None)
            if found[0] == stream:
                return list(found[1:])
            self._others.append(found[0])
        return None

    def others(self) -> Sequence[UUID]:
        """Return the streams that `row_of` was not asked for."""
        while self._next is not None:
            self._others.append(self._next[0])
            self._next = next(self._rows, None)
        return self._others


def _check_months(connection: Connection) -> Iterator[Finding]:
    names = "credits of card, rows, days, attribution; photos of the same; runs; events"
    for stream, month, *sums in stream_rows(connection, "months", _MONTHS):
        yield Finding("month", stream, f"{month}: {names}: {sums}")


def _check_event_totals(connection: Connection) -> Iterator[Finding]:
    for stream, event_id, *sums in stream_rows(connection, "event_totals", _EVENT_TOTALS):
        yield Finding("event", stream, f"{event_id}: credits, photos, runs of all time and months: {sums}")


def _rows(connection: Connection, query: str) -> list[Row]:
    return connection.cursor(row_factory=tuple_row).execute(query).fetchall()
