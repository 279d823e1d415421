"""One at work, others standing by: a lock of the session, which ends with it."""

from __future__ import annotations

import logging
from threading import Event
from typing import Any, Final

import psycopg

_LOOK_EVERY_S: Final = 0.5
# Whoever holds the lock and sleeps, or has vanished with its machine, loses it after this.
_SESSION_ENDS_AFTER_S: Final = 60

log = logging.getLogger(__name__)


def lead(connection: psycopg.Connection[Any], take_lock: str, stop: Event, who: str) -> bool:
    """Wait until `take_lock`, a query, answers that the lock is ours; tell False if told to stop before.

    `who` it is, for the log.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    connection.execute(f"SET idle_session_timeout = '{_SESSION_ENDS_AFTER_S}s'")
    said = False
    while not stop.is_set():
        row = connection.execute(take_lock.encode()).fetchone()
        if row is not None and row[0]:
            return True
        if not said:
            log.info("another %s is at work: standing by", who)
            said = True
        stop.wait(_LOOK_EVERY_S)
    return False
