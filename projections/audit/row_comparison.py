"""Compares every projected row with the log: folds the whole log into separate tables.

Runners and readers continue meanwhile. When the separate tables have almost caught up, the live positions
are locked for a moment: the remaining events are folded, a database snapshot is taken, and the lock is
released. In that snapshot both sets of tables are at the same positions. They are compared in it column by
column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from domain.shared.errors import InvariantViolation, UnknownEventType
from projections.audit.findings import FINDINGS_MAX, Difference, Finding
from projections.audit.invariants import check
from projections.connection import Connection
from projections.engine.checkpoints import Checkpoint, lock_checkpoints, read_checkpoints
from projections.engine.errors import RebuildConflict
from projections.engine.projector import BATCH_SIZE, LIVE_SCHEMA, Projector
from projections.engine.shadow_tables import (
    SHADOW_SCHEMA,
    analyze,
    create_shadow_tables,
    drop_shadow_schema,
    rebuild_lock,
    tables_of,
)
from projections.registry import ALL_PROJECTIONS

_NAMES: Final = [projection.name for projection in ALL_PROJECTIONS]
_TABLES: Final = tables_of(ALL_PROJECTIONS)
_HOLD_TIMEOUT: Final = "60s"
_WORK_MEMORY: Final = "64MB"

_FOLD_ERRORS: Final = (
    InvariantViolation,
    UnknownEventType,
    msgspec.DecodeError,
    psycopg.DataError,
    psycopg.IntegrityError,
)

_COLUMNS: Final = """
    SELECT attname::text, coalesce(attnum = ANY(indkey), false)
    FROM pg_attribute LEFT JOIN pg_index ON indrelid = attrelid AND indisprimary AND indisvalid
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

_DIFFERING: Final = """
    SELECT total, stream, coalesce(in_log.organisation_id, found.organisation_id),
        to_jsonb(live_row), to_jsonb(log_row)
    FROM (
        SELECT count(*) OVER () AS total, {keys}, live AS live_row, log AS log_row
        FROM {live} AS live FULL JOIN {log} AS log USING ({keys})
        WHERE ROW({live_columns}) IS DISTINCT FROM ROW({log_columns})
        ORDER BY {keys} LIMIT {limit}
    ) AS differing
    LEFT JOIN {log_balances} AS in_log USING (stream)
    LEFT JOIN {live_balances} AS found USING (stream)
    ORDER BY {keys}
"""


def compare_with_log(owner_conninfo: str, *, batch_size: int = BATCH_SIZE) -> list[Finding]:
    """Return the findings of `check`, and every row that differs from the row computed from the log.

    At most `FINDINGS_MAX` rows per table are returned; the others are counted. The separate tables are
    dropped at the end. If the process is killed, the next comparison or rebuild drops them.

    Raises:
        RebuildConflict: a rebuild or another comparison is running, or the live positions are never free.
        psycopg.errors.InsufficientPrivilege: the role does not own the projections.
        psycopg.OperationalError: the database was lost; start again.
    """
    with psycopg.connect(owner_conninfo, autocommit=True) as connection, rebuild_lock(connection):
        unusable = list(_check_tables(connection))
        if unusable:
            return unusable
        found = check(connection)
        with _scratch_tables(connection):
            return [*found, *_compare(connection, owner_conninfo, batch_size)]


def _check_tables(connection: Connection) -> Iterator[Finding]:
    for table in _TABLES:
        if not any(is_key for _, is_key in _columns(connection, table)):
            yield Finding(
                "table",
                None,
                "the table or its primary key is gone: nothing was compared",
                table=_live_name(table),
            )


@contextmanager
def _scratch_tables(connection: Connection) -> Iterator[None]:
    try:
        create_shadow_tables(connection, ALL_PROJECTIONS, unlogged=True)
        yield
    finally:
        if not connection.closed:
            drop_shadow_schema(connection)


def _compare(connection: Connection, conninfo: str, batch_size: int) -> list[Finding]:
    with psycopg.connect(conninfo, autocommit=True) as snapshot, snapshot.transaction():
        snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot.execute(f"SET LOCAL work_mem = '{_WORK_MEMORY}'")
        snapshot.execute("SET LOCAL timezone = 'UTC'")
        try:
            _fold_and_snapshot(snapshot, connection, conninfo, batch_size)
        except _FOLD_ERRORS as error:
            return [Finding("rows", None, f"the log cannot be folded: {type(error).__name__}: {error}")]
        return [finding for table in _TABLES for finding in _differing(snapshot, table)]


def _fold_and_snapshot(snapshot: Connection, connection: Connection, conninfo: str, batch_size: int) -> None:
    """Fold the log up to the live positions, and take the snapshot while these are locked."""
    connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(LIVE_SCHEMA)))
    connection.execute(f"SET lock_timeout = '{_HOLD_TIMEOUT}'")
    with Projector(conninfo, ALL_PROJECTIONS, schema=SHADOW_SCHEMA, batch_size=batch_size) as projector:
        before = read = _fold(projector, conninfo, read_checkpoints(connection, _NAMES), batch_size)
        while read >= batch_size and read <= before:
            # Rounds get shorter, unless runners are as fast: then only the lock ends the loop.
            before = read // 2
            read = _fold(projector, conninfo, read_checkpoints(connection, _NAMES), batch_size)
        analyze(connection, ALL_PROJECTIONS)
        try:
            with connection.transaction():
                # The live runner waits for this transaction: it must take no longer than one or two batches.
                _fold(projector, conninfo, lock_checkpoints(connection, _NAMES), batch_size)
                snapshot.execute("SELECT 1")  # PostgreSQL takes the snapshot with the first query
        except errors.LockNotAvailable as error:
            raise RebuildConflict("the live positions are never free: end long transactions first") from error


def _fold(projector: Projector, conninfo: str, checkpoints: Sequence[Checkpoint], batch_size: int) -> int:
    """Advance each projection to its live counterpart's position. Return the number of entries read."""
    live = dict.fromkeys(_NAMES, 0) | {
        checkpoint.projection: checkpoint.position for checkpoint in checkpoints
    }
    read = projector.catch_up(up_to=min(live.values()))
    for checkpoint in projector.checkpoints:
        up_to = live[checkpoint.projection]
        if checkpoint.position < up_to:
            alone = [each for each in ALL_PROJECTIONS if each.name == checkpoint.projection]
            with Projector(conninfo, alone, schema=SHADOW_SCHEMA, batch_size=batch_size) as ahead:
                read += ahead.catch_up(up_to=up_to)
    projector.load_positions()
    return read


def _differing(snapshot: Connection, table: str) -> Iterator[Finding]:
    """Return the rows of a table that are missing, that are not in the log, or that have other values."""
    columns = _columns(snapshot, table)
    keys = [name for name, is_key in columns if is_key]
    query = sql.SQL(_DIFFERING).format(
        keys=sql.SQL(", ").join(map(sql.Identifier, keys)),
        live=sql.Identifier(LIVE_SCHEMA, table),
        log=sql.Identifier(SHADOW_SCHEMA, table),
        live_columns=sql.SQL(", ").join(sql.Identifier("live", name) for name, _ in columns),
        log_columns=sql.SQL(", ").join(sql.Identifier("log", name) for name, _ in columns),
        live_balances=sql.Identifier(LIVE_SCHEMA, "balances"),
        log_balances=sql.Identifier(SHADOW_SCHEMA, "balances"),
        limit=FINDINGS_MAX,
    )
    rows = snapshot.cursor(row_factory=tuple_row).execute(query).fetchall()
    for _, *row_of in rows:
        yield _row_finding(table, keys, tuple(row_of))
    total = rows[0][0] if rows else 0
    if total > FINDINGS_MAX:
        detail = f"and {total - FINDINGS_MAX} more rows of this table"
        yield Finding("rows", None, detail, table=_live_name(table))


def _row_finding(table: str, keys: Sequence[str], row_of: tuple[Any, ...]) -> Finding:
    """Describe a row that differs. The side where the row is missing is None."""
    stream, organisation_id, live, log = row_of
    present = live or log
    assert present is not None, "a row of neither side"
    row = {name: present[name] for name in keys}
    columns = None
    if live is None:
        detail = "the row is missing"
    elif log is None:
        detail = "the log makes no such row"
    else:
        columns = {name: Difference(value, log[name]) for name, value in live.items() if value != log[name]}
        detail = f"the log makes other values of {', '.join(columns)}"
    return Finding("rows", stream, detail, organisation_id, _live_name(table), row, columns)


def _columns(connection: Connection, table: str) -> list[tuple[str, bool]]:
    """Return the columns of a live table, and whether each is part of its primary key."""
    return connection.cursor(row_factory=tuple_row).execute(_COLUMNS, [_live_name(table)]).fetchall()


def _live_name(table: str) -> str:
    return f"{LIVE_SCHEMA}.{table}"
