"""A ledger with endpoints, and deliverers whose clock the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event, Thread
from typing import Any

import psycopg

from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger
from domain.shared.command_context import CommandContext
from domain.shared.money import Currency
from domain.webhooks.endpoints import Delivery, Endpoint
from infra.service.composition import credits_of, open_ledger
from infra.webhooks.deliverer import WebhookDeliverer
from infra.webhooks.endpoints import PostgresWebhookEndpoints
from infra.webhooks.http_sender import HttpSender
from infra.webhooks.outbox import Outbox
from tests.histories import append
from tests.integration.webhooks.receiver import Receiver
from tests.usage_reports import usage_report

ORG = "org-1"


class WebhookEnvironment:
    """`now` is the time of every part; only the test changes it."""

    def __init__(self, conninfo: str, service: str) -> None:
        self.conninfo = conninfo
        self.service = service
        self.now = datetime(2026, 11, 1, 9, tzinfo=UTC)
        self.ledger: Ledger = open_ledger(service)
        connecting: Any = partial(psycopg.connect, service, autocommit=True)
        self.endpoints = PostgresWebhookEndpoints(
            connecting, credits_of(self.ledger).commands, allow_private=True
        )
        self._charges = 0
        self.open(ORG)

    def request(self) -> CommandContext:
        return CommandContext(self.now, "u-admin", "request-1")

    def open(self, organisation_id: str) -> None:
        credits_of(self.ledger).commands.open_organisation(
            organisation_id, context=self.request(), trial_credits=100, currency=Currency.INR
        )

    def add(self, receiver: Receiver, organisation_id: str = ORG) -> tuple[Endpoint, str]:
        return self.endpoints.add(organisation_id, receiver.url, self.request())

    def purchase(self, payment_id: str, organisation_id: str = ORG) -> None:
        credits_of(self.ledger).commands.record_purchase(
            organisation_id,
            1_000,
            payment_id=payment_id,
            order_id="order-1",
            gateway="razorpay",
            context=self.request(),
        )

    def grant(self, credits_count: int) -> None:
        credits_of(self.ledger).commands.grant(
            ORG, credits_count, kind=GrantKind.ADMIN, reason="x", context=self.request()
        )

    def charge(self, photos: int) -> None:
        """Charge photos, as the usage consumer would."""
        self._charges += 1
        organisation = self.ledger.organisation(ORG)
        report = usage_report(
            photos=photos, message_id=f"m-{self._charges}", run_id="run-1", occurred_at=self.now
        )
        organisation.charge(report, 1_000_000, self.now)
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            append(connection, organisation.collect_events())

    def deliverer(self, **options: Any) -> WebhookDeliverer:
        sender = HttpSender(allow_private=True, within_s=options.pop("within_s", 5.0))
        return WebhookDeliverer(
            self.service, self.endpoints, sender, lambda: self.now, lambda: 0.0, **options
        )

    def fill(self) -> None:
        """Create deliveries for all events in the log."""
        with psycopg.connect(self.service, autocommit=True) as connection:
            while Outbox().fill(connection, self.now):
                pass

    def deliveries(self, endpoint: Endpoint) -> list[Delivery]:
        """Return an endpoint's deliveries, oldest first."""
        return self.endpoints.deliveries(ORG, endpoint.endpoint_id)[::-1]

    def endpoint(self) -> Endpoint:
        (endpoint,) = self.endpoints.of(ORG)
        return endpoint

    def later(self, **span: float) -> None:
        self.now += timedelta(**span)


@contextmanager
def delivering(deliverer: WebhookDeliverer) -> Iterator[WebhookDeliverer]:
    """Run a deliverer in a thread."""
    stop = Event()
    thread = Thread(target=deliverer.run, args=(stop,))
    thread.start()
    try:
        yield deliverer
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
