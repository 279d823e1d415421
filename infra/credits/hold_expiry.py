"""Lets holds lapse when their time is over.

Which ones are due is read from the projection; whether they still are is decided by the organisation itself,
under its version: two processes that do this, or a settlement that comes at the same moment, lapse nothing
twice. A hold that is due also lapses by itself before any other decision of its organisation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Event
from typing import Final

from psycopg.rows import tuple_row

from domain.credits.errors import OrganisationNotFound
from domain.credits.ledger import Ledger
from domain.shared.command_context import CommandContext
from infra.polling import run_periodically
from projections.connection import Connection

EVERY_S: Final = 1.0
_BATCH_LIMIT: Final = 1_000
_CAUSE: Final = "hold-lapsed"

_DUE: Final = """
    SELECT DISTINCT organisation_id
    FROM projections.holds JOIN projections.balances USING (stream)
    WHERE status = 'open' AND expires_at <= %s LIMIT %s
"""

log = logging.getLogger(__name__)


class HoldExpiryWorker:
    """Looks for holds that are due once a second. Used by one thread; any number may run."""

    def __init__(self, ledger: Ledger, conninfo: str, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._conninfo = conninfo
        self._clock = clock

    def run(self, stop: Event) -> None:
        """Lapse what is due until told to stop; a lost database is waited for."""
        run_periodically(self._conninfo, EVERY_S, self.expire_due, stop, "letting holds lapse")

    def expire_due(self, connection: Connection) -> int:
        """Lapse the holds that are due now, and return in how many organisations there were some.

        Raises:
            StoreUnavailable, psycopg.OperationalError: the database was lost.
        """
        now = self._clock()
        rows = connection.cursor(row_factory=tuple_row).execute(_DUE, (now, _BATCH_LIMIT)).fetchall()
        for (organisation_id,) in rows:
            try:
                self._ledger.expire_holds(organisation_id, context=CommandContext(now, None, _CAUSE))
            except OrganisationNotFound:
                log.exception("a hold of %s is projected, and nothing of it is in the log", organisation_id)
        return len(rows)
