"""Looks after payments that nobody looks at any more.

What a gateway has not confirmed is asked for again, at first soon and then ever more seldom; what a crash
left half-way is gone on with; refunds are asked for until they are answered; what nobody pays for a day is
abandoned, and asked about for a while longer, because money may come late. A Pro subscription ends when its
time is over.

Which payments these are is read from the projection. What becomes of them is decided by the payments
themselves, under their versions: any number of processes may do this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Event
from typing import Any, Final

import msgspec
from psycopg.rows import tuple_row

from domain.credits.ledger import Ledger
from domain.payments.gateway import GatewayUnavailable
from domain.payments.tracking import PaymentTracking
from domain.shared.command_context import CommandContext
from domain.shared.errors import LedgerError, StoreError
from infra.polling import run_periodically
from projections.connection import Connection

EVERY_S: Final = 5.0
RECHECK_FOR: Final = timedelta(days=3)
"""How long after its beginning a payment that nobody paid is asked about."""
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
    """Where payments stand: how many nobody has paid yet, since when, and how many flags are open."""

    pending: int = 0
    oldest_pending_s: float = 0.0
    open_refunds: int = 0
    flagged: int = 0


class PaymentWorker:
    """Used by one thread; `payment_counts` and `failures` may be read from any other."""

    def __init__(
        self, tracking: PaymentTracking, ledger: Ledger, conninfo: str, clock: Callable[[], datetime]
    ) -> None:
        self.payment_counts = PaymentCounts()
        self.failures = 0
        self._tracking = tracking
        self._ledger = ledger
        self._conninfo = conninfo
        self._clock = clock
        self._rechecked_at: dict[str, datetime] = {}

    def run(self, stop: Event) -> None:
        """Look after payments until told to stop; a lost database is waited for."""
        run_periodically(self._conninfo, EVERY_S, self.follow_up_due, stop, "looking after payments")

    def follow_up_due(self, connection: Connection) -> int:
        """Attend to what is due now, and return how many payments that was.

        Raises:
            StoreUnavailable, psycopg.OperationalError: the database was lost.
        """
        now = self._clock()
        cursor = connection.cursor(row_factory=tuple_row)
        open_ones = cursor.execute(_DUE, (now - RECHECK_FOR, _BATCH_LIMIT)).fetchall()
        self._rechecked_at = {
            payment_id: self._rechecked_at[payment_id]
            for payment_id, _, _ in open_ones
            if payment_id in self._rechecked_at
        }
        due = [each for each in open_ones if self._is_due(each[0], each[2], now)]
        silent: set[str] = set()
        for payment_id, gateway, _ in due:
            self._rechecked_at[payment_id] = now
            if gateway not in silent and not self._follow_up(payment_id, now):
                silent.add(gateway)
        self._end_subscriptions(cursor.execute(_ENDED, (now, _BATCH_LIMIT)).fetchall(), now)
        self._count(cursor.execute(_COUNTS).fetchone(), now)
        return len(due)

    def _is_due(self, payment_id: str, since: datetime, now: datetime) -> bool:
        """Tell whether a payment is to be asked about: one that is old can wait for long."""
        wait = min(max((now - since) / _AGE_DIVISOR, RECHECK_INTERVAL_MIN), RECHECK_INTERVAL_MAX)
        return now - self._rechecked_at.get(payment_id, since) >= wait

    def _follow_up(self, payment_id: str, now: datetime) -> bool:
        """Attend to a payment; tell False where its gateway does not answer: others need not wait too."""
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
            log.exception("payment %s cannot be looked after", payment_id)
        return True

    def _end_subscriptions(self, rows: list[tuple[Any, ...]], now: datetime) -> None:
        for (organisation_id,) in rows:
            self._ledger.expire_pro(organisation_id, context=CommandContext(now, None, _CAUSE))

    def _count(self, row: tuple[Any, ...] | None, now: datetime) -> None:
        assert row is not None
        pending, oldest_at, open_refunds, flagged = row
        oldest_s = 0.0 if oldest_at is None else (now - oldest_at).total_seconds()
        self.payment_counts = PaymentCounts(pending, oldest_s, open_refunds, flagged)
