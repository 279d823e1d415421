"""Leader election: one process works, others stand by. The lock belongs to the session and ends with it."""

from __future__ import annotations

import logging
from threading import Event
from typing import Final

from projections.connection import Connection

_LOCK_POLL_S: Final = 0.5
# A leader that sleeps, or whose machine is gone, loses the lock after this time.
_IDLE_SESSION_TIMEOUT_S: Final = 60

log = logging.getLogger(__name__)


def wait_for_leadership(connection: Connection, take_lock: str, stop: Event, role: str) -> bool:
    """Wait until `take_lock`, a query, returns that the lock is ours. Return False if stopped before.

    `role` names the work in log lines.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    connection.execute(f"SET idle_session_timeout = '{_IDLE_SESSION_TIMEOUT_S}s'")
    has_logged = False
    while not stop.is_set():
        row = connection.execute(take_lock.encode()).fetchone()
        if row is not None and row[0]:
            return True
        if not has_logged:
            log.info("another %s is running: standing by", role)
            has_logged = True
        stop.wait(_LOCK_POLL_S)
    return False
