"""Reads a gateway's settlement lines and the ledger's payments for `domain.payments.reconciliation`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from psycopg.rows import tuple_row

from domain.credits.events import CreditsPurchased
from domain.credits.ledger import Ledger
from domain.payments.events import (
    AttemptRefunded,
    PaymentCompleted,
    PaymentOrdered,
    PaymentRefunded,
)
from domain.payments.gateway import (
    Attempt,
    AttemptStatus,
    GatewayRefused,
    PaymentGateway,
    SettlementKind,
    SettlementLine,
)
from domain.payments.payment import Payment, evolve
from domain.payments.reconciliation import (
    Difference,
    LedgerPayment,
    LedgerRefund,
    Period,
    reconcile,
)
from domain.shared.errors import StoreUnavailable
from domain.shared.event_store import EventStore
from domain.shared.stream_keys import order_key, payment_stream, purchase_key
from infra.clock import utc_now
from infra.payments.gateways.wiring import open_gateways
from infra.settings import InvalidSetting, Settings
from projections.connection import Connection

PERIOD_MARGIN: Final = timedelta(days=7)
"""Longest time from the start of an attempt to its capture."""
PROJECTED_WITHIN_S: Final = 10.0
_POLL_S: Final = 0.1

# Payments that were completed or refunded in the period. For gateways without a list, also those created in
# it.
_CANDIDATES: Final = """
    SELECT payment_id FROM projections.payments
    WHERE gateway = %(gateway)s AND (
        (completed_at >= %(begin)s AND completed_at < %(end)s)
        OR refunded_minor > 0
        OR payment_id IN (SELECT payment_id FROM projections.payment_flags WHERE refund_id IS NOT NULL)
        OR (created_at >= %(begun_from)s AND created_at < %(end)s)
    )
"""
_ORGANISATION: Final = "SELECT organisation_id FROM projections.balances WHERE stream = %s"
_BEHIND: Final = """
    SELECT (SELECT coalesce(max(notification_id), 0) FROM ledger.events)
        - coalesce((SELECT min("position") FROM projections.positions
            WHERE projection IN ('payments', 'payment_flags')), 0)
"""


def make_reconciliation(
    settings: Settings,
    ledger: Ledger,
    connect: Callable[[], AbstractContextManager[Connection]],
) -> Callable[[str, date, date], list[Difference]]:
    """Return a function that compares a configured gateway with the ledger.

    The function takes the gateway's name, the first day and the last day (UTC, both included). It raises
    InvalidSetting if the gateway is not configured, and the errors of `Reconciler.differences`.
    """

    def compare(gateway: str, first: date, last: date) -> list[Difference]:
        gateways = open_gateways(settings)
        try:
            if gateway not in gateways:
                configured = ", ".join(gateways) or "none"
                raise InvalidSetting(f"the gateway {gateway} is not configured; configured: {configured}")
            with connect() as connection:
                reconciler = Reconciler(gateways[gateway], ledger.runner.store, connection)
                return reconciler.differences(first, last, utc_now())
        finally:
            for each in gateways.values():
                each.close()

    return compare


class Reconciler:
    """Compares one gateway with the ledger."""

    def __init__(self, gateway: PaymentGateway, store: EventStore, connection: Connection) -> None:
        self._gateway = gateway
        self._store = store
        self._connection = connection

    def differences(self, first: date, last: date, now: datetime) -> list[Difference]:
        """Return every difference between two days (UTC, both included).

        Raises:
            GatewayUnavailable, GatewayRefused: the gateway does not return its payments.
            StoreUnavailable: the projections lag behind the log for too long.
        """
        self._wait_until_projected()
        begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
        period = Period(
            begin,
            datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1),
            settled_until=now - self._gateway.settlement_delay_max,
        )
        candidates = list(self._candidates(period))
        try:
            lines = list(self._gateway.settlement_lines(first - PERIOD_MARGIN, last + PERIOD_MARGIN))
        except GatewayRefused as refusal:
            if refusal.details.get("code") != "NO_SETTLEMENT_LIST":
                raise
            payments = self._load_payments(candidates)
            lines = list(self._attempts_by_payment(payments, period))
            return reconcile(lines, payments, period, lists_refunds=False)
        payments = self._load_payments({*candidates, *self._payments_of(lines)})
        return reconcile(lines, [*payments, *self._recorded_by_hand(lines, payments)], period)

    def _candidates(self, period: Period) -> Iterator[str]:
        parameters = {
            "gateway": self._gateway.name,
            "begin": period.begin,
            "end": period.end,
            "begun_from": period.begin - PERIOD_MARGIN,
        }
        for (payment_id,) in self._connection.cursor(row_factory=tuple_row).execute(_CANDIDATES, parameters):
            yield payment_id

    def _payments_of(self, lines: Iterable[SettlementLine]) -> Iterator[str]:
        """Return the ids of the payments whose orders are in the lines, also older ones."""
        for order_id in {line.order_id for line in lines if line.order_id is not None}:
            envelope = self._store.find_by_dedupe_key(order_key(self._gateway.name, order_id))
            if envelope is not None and isinstance(envelope.event, PaymentOrdered):
                yield envelope.event.payment_id

    def _load_payments(self, payment_ids: Iterable[str]) -> list[LedgerPayment]:
        loaded = (self._load_payment(payment_id) for payment_id in sorted(payment_ids))
        return [payment for payment in loaded if payment is not None]

    def _load_payment(self, payment_id: str) -> LedgerPayment | None:
        """Load a payment from its events. Return None if it has no order at the gateway."""
        payment: Payment | None = None
        completed_at = None
        refunds = []
        for envelope in self._store.get(payment_stream(payment_id)):
            payment = evolve(payment, envelope)
            if isinstance(envelope.event, PaymentCompleted):
                completed_at = envelope.event.recorded_at
            elif isinstance(envelope.event, PaymentRefunded | AttemptRefunded):
                refunds.append(envelope.event)
        if payment is None or payment.order_id is None:
            return None
        terms = payment.terms
        return LedgerPayment(
            payment_id,
            terms.organisation_id,
            payment.order_id,
            terms.total_minor,
            terms.currency.value,
            credits=terms.credits,
            credits_added=self._credited(payment.gateway_payment_id),
            gateway_payment_id=payment.gateway_payment_id,
            completed_at=completed_at,
            refunds=tuple(
                LedgerRefund(
                    event.refund_id,
                    event.gateway_refund_id,
                    payment.refunds[event.refund_id].requested_refund.total_minor,
                    event.recorded_at,
                    *(
                        (event.gateway_payment_id, event.currency)
                        if isinstance(event, AttemptRefunded)
                        else ()
                    ),
                )
                for event in refunds
                if event.gateway_refund_id  # a refund of free credits has no gateway refund
            ),
        )

    def _recorded_by_hand(
        self, lines: Iterable[SettlementLine], payments: Iterable[LedgerPayment]
    ) -> Iterator[LedgerPayment]:
        """Return purchases that staff recorded for payments created outside the ledger."""
        known = {payment.order_id for payment in payments}
        for line in lines:
            envelope = self._store.find_by_dedupe_key(
                purchase_key(self._gateway.name, line.gateway_payment_id)
            )
            if line.kind is not SettlementKind.PAYMENT or line.order_id in known or envelope is None:
                continue
            assert isinstance(envelope.event, CreditsPurchased)
            event = envelope.event
            yield LedgerPayment(
                event.payment_id,
                self._organisation_of(envelope.originator_id),
                event.order_id,
                event.amount_minor + event.tax_minor,
                event.currency.value,
                credits=event.credits,
                credits_added=event.credits,
                gateway_payment_id=event.payment_id,
                completed_at=event.recorded_at,
            )

    def _organisation_of(self, stream: UUID) -> str:
        row = self._connection.execute(_ORGANISATION, (stream,)).fetchone()
        return "" if row is None else str(row[0])

    def _credited(self, gateway_payment_id: str | None) -> int:
        """Return the credits that the payment added, whether recorded by the service or by staff."""
        if gateway_payment_id is None:
            return 0
        envelope = self._store.find_by_dedupe_key(purchase_key(self._gateway.name, gateway_payment_id))
        return (
            envelope.event.credits
            if envelope is not None and isinstance(envelope.event, CreditsPurchased)
            else 0
        )

    def _attempts_by_payment(
        self, payments: Iterable[LedgerPayment], period: Period
    ) -> Iterator[SettlementLine]:
        """Return lines from a gateway without a settlement list: one request per order of the ledger."""
        for payment in payments:
            attempts: Sequence[Attempt] = ()
            with suppress(GatewayRefused):  # the gateway does not know the order
                attempts = self._gateway.attempts(payment.order_id)
            for attempt in attempts:
                if attempt.status is AttemptStatus.CAPTURED:
                    yield SettlementLine(
                        SettlementKind.PAYMENT,
                        attempt.gateway_payment_id,
                        attempt.order_id,
                        attempt.amount_minor,
                        attempt.currency,
                        payment.completed_at or period.begin,
                    )

    def _wait_until_projected(self) -> None:
        deadline = time.monotonic() + PROJECTED_WITHIN_S
        while (behind := self._connection.execute(_BEHIND).fetchone()) and behind[0] > 0:
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the projections lag {behind[0]:,} events behind the log:"
                    " check that `creditledger project` runs"
                )
            time.sleep(_POLL_S)
