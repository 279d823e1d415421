"""Rebuilds projections from the log in separate tables, and then swaps the tables.

New tables are filled in the schema `projections_next` while runners and readers use the live ones. The swap
is one short transaction: it locks the live positions, folds the remaining events, swaps the tables and
increments the generation. A runner with the old generation is fenced off and loads the positions again. An
interrupted rebuild changes nothing in use; the next one starts from the beginning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg import errors, sql

from projections.connection import Connection
from projections.engine.checkpoints import load_checkpoints, lock_checkpoints
from projections.engine.errors import RebuildConflict
from projections.engine.projection import Projection
from projections.engine.projector import BATCH_SIZE, LIVE_SCHEMA, Projector
from projections.engine.shadow_tables import (
    SHADOW_SCHEMA,
    analyze,
    create_shadow_tables,
    drop_shadow_schema,
    rebuild_lock,
    tables_of,
)
from projections.engine.table_swap import replace_table

_SWAP_LOCK_TIMEOUT: Final = "250ms"  # readers queue behind a waiting swap for at most this time
_SWAP_ATTEMPTS: Final = 120
_SWAP_PAUSE_S: Final = 0.5

logger = logging.getLogger(__name__)


def rebuild(
    conninfo: str, projections: Sequence[Projection], *, batch_size: int = BATCH_SIZE
) -> dict[str, int]:
    """Rebuild projections. Return, by name, the position of each one at its swap.

    `conninfo` must connect as the owner of the schema `projections`, or as a superuser.

    Raises:
        RebuildConflict: another rebuild or a comparison is running, or long readers prevented the swap.
        psycopg.OperationalError: the database was lost; start again.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection, rebuild_lock(connection):
        create_shadow_tables(connection, projections)
        with Projector(conninfo, projections, schema=SHADOW_SCHEMA, batch_size=batch_size) as projector:
            while projector.catch_up() >= batch_size:
                pass
            analyze(connection, projections)
            swapped_in_at = _swap_with_retries(connection, projector, projections)
        drop_shadow_schema(connection)
    return swapped_in_at


def _swap_with_retries(
    connection: Connection, projector: Projector, rebuilt: Sequence[Projection]
) -> dict[str, int]:
    connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(LIVE_SCHEMA)))
    connection.execute(f"SET lock_timeout = '{_SWAP_LOCK_TIMEOUT}'")
    for _ in range(_SWAP_ATTEMPTS):
        projector.catch_up()
        try:
            return _swap(connection, projector, rebuilt)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            logger.info("the swap waits for readers: %s", error)
            time.sleep(_SWAP_PAUSE_S)
    raise RebuildConflict(f"no moment to swap in {_SWAP_ATTEMPTS} attempts: end long transactions first")


def _swap(connection: Connection, projector: Projector, rebuilt: Sequence[Projection]) -> dict[str, int]:
    """Replace the live tables by the new ones, at or after the live position."""
    names = [projection.name for projection in rebuilt]
    with connection.transaction():
        load_checkpoints(connection, names)
        locked = lock_checkpoints(connection, names)
        # The live runner waits now; nothing it wrote may be missing from the new rows.
        projector.catch_up(up_to=max(checkpoint.position for checkpoint in locked))
        for table in tables_of(rebuilt):
            replace_table(connection, table, live_schema=LIVE_SCHEMA, next_schema=SHADOW_SCHEMA)
        swapped_in_at = {checkpoint.projection: checkpoint.position for checkpoint in projector.checkpoints}
        for name, position in swapped_in_at.items():
            connection.execute(
                'UPDATE positions SET "position" = %s, generation = generation + 1,'
                " updated_at = clock_timestamp() WHERE projection = %s",
                [position, name],
            )
    return swapped_in_at
