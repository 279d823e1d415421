"""Histories for tests: events decided by the aggregate, appended to the log as the event store would."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg

from domain.credits.events import ChargeRefunded, GrantKind, UsageCharged
from domain.credits.organisation import Organisation
from domain.credits.refund_allocation import lot_opened_by
from domain.event_catalogue import EventCodec
from domain.pricing.price_book import PUBLISHED_PRICES
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS, UsageType
from domain.shared.aggregate import DomainEvent, EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.event_store import EVENTS_CHANNEL
from domain.shared.money import Currency, cost_of
from domain.shared.stream_keys import stream_id
from infra.event_store.datastore import TAKE_WRITE_LOCK
from tests.usage_reports import usage_report

CODEC = EventCodec()
START = datetime(2026, 7, 1, 12, tzinfo=UTC)

_message_numbers = count(1)


class Account:
    """An organisation and its events. Its clock advances one second per event."""

    def __init__(
        self,
        organisation_id: str = "org-4711",
        *,
        time_zone: str = "UTC",
        currency: Currency = Currency.INR,
        trial_credits: int = 0,
    ) -> None:
        self.now = START
        self.organisation = Organisation.open(
            organisation_id,
            time_zone=time_zone,
            currency=currency,
            price_millionths=1_500_000,
            trial_credits=trial_credits,
            context=self.request(),
        )
        self.history: list[EventEnvelope] = []
        self._collected = 0

    def request(self) -> CommandContext:
        self.now += timedelta(seconds=1)
        return CommandContext(self.now, "u-1", "request-1")

    def charge(
        self,
        photos: int,
        run_id: str = "run-88",
        *,
        at: datetime = START,
        rate_millionths: int = WHOLE_CREDIT_MILLIONTHS,
        usage_type: UsageType = UsageType.PHOTO_PROCESSING,
        event_id: int = 1042,
        event_name: str = "City Marathon 2026",
        user: str | None = "u-17",
    ) -> EventEnvelope:
        """Charge photos of a run."""
        report = usage_report(
            source="/photo-processing/worker-7",
            message_id=f"message-{next(_message_numbers)}",
            run_id=run_id,
            usage_type=usage_type,
            photos=photos,
            ai_search=True,
            event_id=event_id,
            event_name=event_name,
            user=user,
            hold_id=None,
            occurred_at=at,
        )
        return self.organisation.charge(report, rate_millionths, self.request().at)

    def grant(self, credits_count: int, kind: GrantKind = GrantKind.ADMIN) -> EventEnvelope:
        return self.organisation.grant(credits_count, kind, "goodwill", self.request())

    def purchase(self, credits_count: int) -> EventEnvelope:
        organisation = self.organisation
        tax_per_cent = PUBLISHED_PRICES.of(organisation.currency).tax_per_cent
        return organisation.purchase(
            credits_count,
            payment_id="pay-1",
            order_id="order-1",
            gateway="razorpay",
            unit_price_millionths=organisation.price_millionths,
            cost=cost_of(credits_count, organisation.price_millionths, tax_per_cent),
            currency=organisation.currency,
            context=self.request(),
        )

    def refund(self, charge: EventEnvelope, credits_count: int | None = None) -> EventEnvelope:
        """Refund a charge of this account: the given credits, or the unrefunded rest."""
        self._gather()
        assert isinstance(charge.event, UsageCharged)
        recorded = [envelope.event for envelope in self.history]
        return self.organisation.refund(
            charge,
            credits_count,
            earlier_refunds=[
                event
                for event in recorded
                if isinstance(event, ChargeRefunded) and event.charge == charge.originator_version
            ],
            opened_lots=[
                lot
                for allocation in charge.event.draws
                for lot in lot_opened_by(self.history[allocation.lot - 1])
            ],
            reason="blurred",
            context=self.request(),
        )

    def refundable(self, charge: EventEnvelope) -> int:
        """Return the credits of a charge that are not refunded yet."""
        self._gather()
        assert isinstance(charge.event, UsageCharged)
        return charge.event.credits - sum(
            envelope.event.credits
            for envelope in self.history
            if isinstance(envelope.event, ChargeRefunded)
            and envelope.event.charge == charge.originator_version
        )

    def collect(self) -> list[EventEnvelope]:
        """Return the events since the last call, to be appended."""
        self._gather()
        new, self._collected = self.history[self._collected :], len(self.history)
        return new

    def _gather(self) -> None:
        self.history += self.organisation.collect_events()


def append(connection: psycopg.Connection[Any], events: Iterable[EventEnvelope]) -> int:
    """Commit events to `ledger.events`, notify listeners, and return the log's last notification id."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(TAKE_WRITE_LOCK)
        with cursor.copy(
            "COPY ledger.events (originator_id, originator_version, topic, state) FROM STDIN BINARY"
        ) as copy:
            copy.set_types(["uuid", "int8", "text", "bytea"])
            for envelope in events:
                topic, state = CODEC.topic_of[type(envelope.event)], CODEC.encode(envelope.event)
                copy.write_row((envelope.originator_id, envelope.originator_version, topic, state))
        cursor.execute(f"NOTIFY {EVENTS_CHANNEL}")
        row = cursor.execute("SELECT coalesce(max(notification_id), 0) FROM ledger.events").fetchone()
        assert row is not None
        return int(row[0])


def history(conninfo: str, organisation_id: str) -> list[DomainEvent]:
    """Return the stored events of an organisation, oldest first."""
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute(
            "SELECT topic, state FROM ledger.events WHERE originator_id = %s ORDER BY originator_version",
            [stream_id(organisation_id)],
        ).fetchall()
    return [CODEC.decode(topic, state) for topic, state in rows]
