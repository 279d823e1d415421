"""Deletes old snapshots that are no longer needed.

A load starts at the newest snapshot. A read of an earlier moment starts at the last snapshot before it. So
some older snapshots stay, and such a read replays a few thousand events more.
"""

from __future__ import annotations

import logging
from threading import Event
from typing import Any, Final

import psycopg

from infra.polling import run_periodically

EVERY_S: Final = 900.0
LATEST_KEPT: Final = 4
"""Newest snapshots kept per stream. More than one, because the newest may be of an uncommitted version."""
KEEP_EVERY_NTH: Final = 5_000
"""Of older snapshots, one stays per this number of versions."""
_BATCH_LIMIT: Final = 50_000

_DELETE_OLD_SNAPSHOTS: Final = """
    DELETE FROM ledger.snapshots USING (
        SELECT originator_id, originator_version
        FROM (
            SELECT originator_id, originator_version,
                row_number() OVER (PARTITION BY originator_id ORDER BY originator_version DESC) AS age,
                row_number() OVER (PARTITION BY originator_id, originator_version / %(keep_every_nth)s
                    ORDER BY originator_version) AS rank
            FROM ledger.snapshots
        ) AS snapshot
        WHERE age > %(latest_kept)s AND rank > 1 LIMIT %(batch_limit)s
    ) AS obsolete
    WHERE snapshots.originator_id = obsolete.originator_id
        AND snapshots.originator_version = obsolete.originator_version
"""

log = logging.getLogger(__name__)


class SnapshotRetentionWorker:
    """Deletes old snapshots every 15 minutes.

    One thread uses an instance; any number of instances may run.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def run(self, stop: Event) -> None:
        """Delete old snapshots until `stop` is set. Wait for the database if it is lost."""
        run_periodically(self._conninfo, EVERY_S, self.delete_old_snapshots, stop, "deleting old snapshots")

    def delete_old_snapshots(self, connection: psycopg.Connection[Any]) -> int:
        """Delete the old snapshots. Return their number.

        Raises:
            psycopg.OperationalError: the database was lost.
        """
        values = {"keep_every_nth": KEEP_EVERY_NTH, "latest_kept": LATEST_KEPT, "batch_limit": _BATCH_LIMIT}
        deleted = latest = connection.execute(_DELETE_OLD_SNAPSHOTS, values).rowcount
        while latest == _BATCH_LIMIT:
            latest = connection.execute(_DELETE_OLD_SNAPSHOTS, values).rowcount
            deleted += latest
        if deleted:
            log.info("deleted %d old snapshots", deleted)
        return deleted
