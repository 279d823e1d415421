"""Expires holds that are due.

The projection lists the holds that may be due. The organisation decides whether they still are, and its
version makes the decision safe: a hold expires once, even with several workers or a concurrent settlement.
An organisation also expires its own due holds before any other decision.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Event
from typing import Final

from psycopg.rows import tuple_row

from domain.credits.errors import OrganisationNotFound
from domain.credits.hold_commands import HoldCommands
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
    """Expires due holds once a second. One thread uses an instance; any number of instances may run."""

    def __init__(self, holds: HoldCommands, conninfo: str, clock: Callable[[], datetime]) -> None:
        self._holds = holds
        self._conninfo = conninfo
        self._clock = clock

    def run(self, stop: Event) -> None:
        """Expire due holds until `stop` is set. Wait for the database if it is lost."""
        run_periodically(self._conninfo, EVERY_S, self.expire_due, stop, "expiring holds")

    def expire_due(self, connection: Connection) -> int:
        """Expire the holds that are due now. Return the number of organisations that had one.

        Raises:
            StoreUnavailable, psycopg.OperationalError: the database was lost.
        """
        now = self._clock()
        rows = connection.cursor(row_factory=tuple_row).execute(_DUE, (now, _BATCH_LIMIT)).fetchall()
        for (organisation_id,) in rows:
            try:
                self._holds.expire_holds(organisation_id, context=CommandContext(now, None, _CAUSE))
            except OrganisationNotFound:
                log.exception(
                    "a hold of organisation %s is projected, but the log does not have the organisation",
                    organisation_id,
                )
        return len(rows)
