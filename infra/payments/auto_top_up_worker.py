"""Starts the automatic top-ups of organisations whose credits are low.

The projection lists the organisations that may need a top-up. The organisation decides whether one starts,
and its version makes that decision safe (decision 0011), so any number of workers may run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Event
from typing import Final

from psycopg.rows import tuple_row

from domain.payments.auto_top_up_purchases import AutoTopUpPurchases
from domain.payments.gateway import GatewayUnavailable, id_for_gateway
from domain.payments.tracking import PaymentTracking
from domain.shared.command_context import CommandContext
from domain.shared.errors import LedgerError, StoreError
from infra.polling import run_periodically
from projections.connection import Connection

EVERY_S: Final = 1.0
_BATCH_LIMIT: Final = 1_000
_CAUSE: Final = "auto-top-up"

# Skip organisations whose top-up was held back today, or whose last payment is still pending.
_DUE: Final = """
    SELECT organisation_id FROM projections.auto_top_ups AS wanted JOIN projections.balances USING (stream)
    WHERE wanted.is_on AND balances.balance - balances.on_hold < wanted.threshold
        AND wanted.held_on <> (%s AT TIME ZONE balances.time_zone)::date
        AND NOT EXISTS (SELECT 1 FROM projections.payments AS last
            WHERE last.payment_id = wanted.last_payment_id AND last.status IN ('created', 'pending'))
    LIMIT %s
"""

log = logging.getLogger(__name__)


class AutoTopUpWorker:
    """Starts due top-ups once a second. One thread uses it; others may read `begun` and `failures`."""

    def __init__(
        self,
        top_ups: AutoTopUpPurchases,
        tracking: PaymentTracking,
        conninfo: str,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self.begun = 0
        self.failures = 0
        self._top_ups = top_ups
        self._tracking = tracking
        self._conninfo = conninfo
        self._clock = clock
        self._new_id = new_id

    def run(self, stop: Event) -> None:
        """Start due top-ups until `stop` is set. Wait for the database if it is lost."""
        run_periodically(self._conninfo, EVERY_S, self.begin_due, stop, "topping up")

    def begin_due(self, connection: Connection) -> int:
        """Start the top-ups that are due now. Return the number of started top-ups.

        Raises:
            StoreUnavailable, psycopg.OperationalError: the database was lost.
        """
        now = self._clock()
        rows = connection.cursor(row_factory=tuple_row).execute(_DUE, (now, _BATCH_LIMIT)).fetchall()
        before = self.begun
        for (organisation_id,) in rows:
            try:
                self._top_up(organisation_id, CommandContext(now, None, _CAUSE))
            except StoreError:
                raise
            except GatewayUnavailable as error:  # the payment is recorded; the payment worker continues it
                log.warning(
                    "top-up of organisation %s: the gateway does not answer: %s", organisation_id, error
                )
            except LedgerError:
                self.failures += 1
                log.exception("organisation %s cannot be topped up", organisation_id)
        return self.begun - before

    def _top_up(self, organisation_id: str, context: CommandContext) -> None:
        payment_id = id_for_gateway("top", self._new_id())
        payment = self._top_ups.begin(organisation_id, payment_id, context=context)
        if payment is not None:
            self.begun += 1
            self._tracking.follow_up(payment.terms.payment_id, context=context)
