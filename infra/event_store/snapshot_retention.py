"""Thins out snapshots that nobody starts from any more.

A load starts at the newest, and a read of an earlier moment at the last one before it. So of older ones some
stay: such a read replays a few thousand events more.
"""

from __future__ import annotations

import logging
from threading import Event
from typing import Any, Final

import psycopg

from infra.polling import run_periodically

EVERY_S: Final = 900.0
LATEST_KEPT: Final = 4
"""Of each stream, whatever their versions: the newest may be of a version that never came to be."""
KEEP_EVERY_NTH: Final = 5_000
"""Versions in which one older snapshot stays."""
_BATCH_LIMIT: Final = 50_000

_DELETE_OLD_SNAPSHOTS: Final = """
    DELETE FROM ledger.snapshots USING (
        SELECT originator_id, originator_version
        FROM (
            SELECT originator_id, originator_version,
                row_number() OVER (PARTITION BY originator_id ORDER BY originator_version DESC) AS age,
                row_number() OVER (PARTITION BY originator_id, originator_version / %(one_in)s
                    ORDER BY originator_version) AS place
            FROM ledger.snapshots
        ) AS snapshot
        WHERE age > %(latest_kept)s AND place > 1 LIMIT %(at_once)s
    ) AS superfluous
    WHERE snapshots.originator_id = superfluous.originator_id
        AND snapshots.originator_version = superfluous.originator_version
"""

log = logging.getLogger(__name__)


class SnapshotRetentionWorker:
    """Looks every quarter of an hour. Used by one thread; any number may run."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def run(self, stop: Event) -> None:
        """Thin out until told to stop; a lost database is waited for."""
        run_periodically(self._conninfo, EVERY_S, self.delete_old_snapshots, stop, "thinning out snapshots")

    def delete_old_snapshots(self, connection: psycopg.Connection[Any]) -> int:
        """Delete what is superfluous, and return how many snapshots that was.

        Raises:
            psycopg.OperationalError: the database was lost.
        """
        values = {"one_in": KEEP_EVERY_NTH, "latest_kept": LATEST_KEPT, "at_once": _BATCH_LIMIT}
        deleted = latest = connection.execute(_DELETE_OLD_SNAPSHOTS, values).rowcount
        while latest == _BATCH_LIMIT:
            latest = connection.execute(_DELETE_OLD_SNAPSHOTS, values).rowcount
            deleted += latest
        if deleted:
            log.info("%d snapshots were superfluous", deleted)
        return deleted
