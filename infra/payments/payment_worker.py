"""Follows up open payments, open refunds and ended Pro subscriptions.

- An unconfirmed payment is checked at the gateway at growing intervals.
- A payment that a crash interrupted is continued.
- An open refund is retried until the gateway confirms or refuses it.
- A payment that is not paid within a day is abandoned. It is checked for some days more, because the money
may
  arrive late.
- A Pro subscription ends when its period is over.

The projection lists the payments. Each payment decides what happens, and its version makes the decision safe,
so any number of workers may run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Event
from typing import Any, Final

import msgspec
from psycopg.rows import tuple_row

from domain.credits.commands import CreditCommands
from domain.payments.gateway import GatewayUnavailable
from domain.payments.tracking import PaymentTracking
from domain.shared.command_context import CommandContext
from domain.shared.errors import LedgerError, StoreError
from infra.polling import run_periodically
from projections.connection import Connection

EVERY_S: Final = 5.0
RECHECK_FOR: Final = timedelta(days=3)
"""An unpaid payment is checked at the gateway for this time after it was created."""
RECHECK_INTERVAL_MIN: Final = timedelta(seconds=15)
RECHECK_INTERVAL_MAX: Final = timedelta(hours=1)
_AGE_DIVISOR: Final = 4
_BATCH_LIMIT: Final = 1_000
_CAUSE: Final = "payments-kept"

_DUE: Final = """
    SELECT payment_id, gateway, created_at FROM projections.payments
    WHERE open_refunds > 0
        OR (completed_at IS NULL AND created_at > %s AND (order_id IS NOT NULL OR status = 'created'))
    ORDER BY created_at DESC LIMIT %s
"""
_ENDED: Final = """
    SELECT organisation_id FROM projections.balances WHERE plan = 'pro' AND plan_expires_at <= %s LIMIT %s
"""
_COUNTS: Final = """
    SELECT count(*), min(created_at),
        (SELECT count(*) FROM projections.payments WHERE open_refunds > 0),
        (SELECT count(*) FROM projections.payment_flags WHERE settled_at IS NULL)
    FROM projections.payments WHERE status IN ('created', 'pending')
"""

log = logging.getLogger(__name__)


class PaymentCounts(msgspec.Struct, frozen=True):
    """Numbers of unpaid payments, payments with open refunds and open flags; age of the oldest unpaid one."""

    pending: int = 0
    oldest_pending_s: float = 0.0
    open_refunds: int = 0
    flagged: int = 0


class PaymentWorker:
    """Follows up due payments every few seconds. Other threads may read `payment_counts` and `failures`."""

    def __init__(
        self,
        tracking: PaymentTracking,
        commands: CreditCommands,
        conninfo: str,
        clock: Callable[[], datetime],
    ) -> None:
        self.payment_counts = PaymentCounts()
        self.failures = 0
        self._tracking = tracking
        self._commands = commands
        self._conninfo = conninfo
        self._clock = clock
        self._rechecked_at: dict[str, datetime] = {}

    def run(self, stop: Event) -> None:
        """Follow up payments until `stop` is set. Wait for the database if it is lost."""
        run_periodically(self._conninfo, EVERY_S, self.follow_up_due, stop, "following up payments")

    def follow_up_due(self, connection: Connection) -> int:
        """Follow up the payments that are due now. Return their number.

        Raises:
            StoreUnavailable, psycopg.OperationalError: the database was lost.
        """
        now = self._clock()
        cursor = connection.cursor(row_factory=tuple_row)
        open_payments = cursor.execute(_DUE, (now - RECHECK_FOR, _BATCH_LIMIT)).fetchall()
        self._rechecked_at = {
            payment_id: self._rechecked_at[payment_id]
            for payment_id, _, _ in open_payments
            if payment_id in self._rechecked_at
        }
        due = [each for each in open_payments if self._is_due(each[0], each[2], now)]
        unavailable: set[str] = set()
        for payment_id, gateway, _ in due:
            self._rechecked_at[payment_id] = now
            if gateway not in unavailable and not self._follow_up(payment_id, now):
                unavailable.add(gateway)
        self._end_subscriptions(cursor.execute(_ENDED, (now, _BATCH_LIMIT)).fetchall(), now)
        self._count(cursor.execute(_COUNTS).fetchone(), now)
        return len(due)

    def _is_due(self, payment_id: str, since: datetime, now: datetime) -> bool:
        """Return whether to check a payment now. The interval grows with the payment's age."""
        wait = min(max((now - since) / _AGE_DIVISOR, RECHECK_INTERVAL_MIN), RECHECK_INTERVAL_MAX)
        return now - self._rechecked_at.get(payment_id, since) >= wait

    def _follow_up(self, payment_id: str, now: datetime) -> bool:
        """Follow up a payment. Return False if its gateway does not answer, so that others are skipped."""
        try:
            self._tracking.follow_up(payment_id, context=CommandContext(now, None, _CAUSE))
        except GatewayUnavailable as error:
            self.failures += 1
            log.warning("payment %s: the gateway does not answer: %s", payment_id, error)
            return False
        except StoreError:
            raise
        except LedgerError:
            self.failures += 1
            log.exception("payment %s cannot be followed up", payment_id)
        return True

    def _end_subscriptions(self, rows: list[tuple[Any, ...]], now: datetime) -> None:
        for (organisation_id,) in rows:
            self._commands.expire_pro(organisation_id, context=CommandContext(now, None, _CAUSE))

    def _count(self, row: tuple[Any, ...] | None, now: datetime) -> None:
        assert row is not None
        pending, oldest_at, open_refunds, flagged = row
        oldest_s = 0.0 if oldest_at is None else (now - oldest_at).total_seconds()
        self.payment_counts = PaymentCounts(pending, oldest_s, open_refunds, flagged)
