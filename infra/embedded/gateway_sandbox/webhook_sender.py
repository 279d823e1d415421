"""Delivers the sandbox's webhooks like Razorpay: signed, at least once, in no guaranteed order."""

from __future__ import annotations

import hmac
import logging
from hashlib import sha256
from threading import Event
from typing import Final

import httpx
import msgspec

from infra.embedded.gateway_sandbox.razorpay_wire import events
from infra.embedded.gateway_sandbox.state import Delivery, Payment, Refund, SandboxState, new_id

EVERY_S: Final = 0.1
_RETRY_MAX_S: Final = 300.0
_GIVE_UP_AFTER_S: Final = 86_400.0
_RESPONSE_TIMEOUT_S: Final = 5.0

log = logging.getLogger(__name__)


class WebhookSender:
    """Queues the webhooks of changed payments and delivers them until acknowledged. One thread runs it."""

    def __init__(self, state: SandboxState, url: str, secret: str, *, retries_after_s: float = 1.0) -> None:
        self._state = state
        self._url = url
        self._secret = secret.encode()
        self._retries_after_s = retries_after_s
        self._client = httpx.Client(timeout=_RESPONSE_TIMEOUT_S)
        self.copies_per_event = 1
        """Number of deliveries of each webhook, even if it was acknowledged."""
        self.sends_newest_first = False
        state.on_payment = self._enqueue

    def run(self, stop: Event) -> None:
        """Capture due payments and deliver webhooks until `stop` is set."""
        while not stop.wait(EVERY_S):
            self._state.capture_due()
            self.deliver_due()
        self._client.close()

    def deliver_due(self) -> None:
        """Attempt every due delivery once."""
        now_s = self._state.clock_s()
        due = [delivery for delivery in self._state.contents.outbox if delivery.next_at <= now_s]
        for delivery in reversed(due) if self.sends_newest_first else due:
            acknowledged = self._deliver_copies(delivery)
            with self._state.transaction() as contents:
                if acknowledged or now_s - delivery.first_at > _GIVE_UP_AFTER_S:
                    contents.outbox.remove(delivery)
                else:
                    delay_s = min(self._retries_after_s * 2**delivery.tries, _RETRY_MAX_S)
                    delivery.tries += 1
                    delivery.next_at = now_s + delay_s

    def sign(self, body: bytes) -> str:
        """Return the signature of a body for the header `X-Razorpay-Signature`."""
        return hmac.new(self._secret, body, sha256).hexdigest()

    def _enqueue(self, event: str, payment: Payment, refund: Refund | None) -> None:
        now_s = self._state.clock_s()
        self._state.contents.outbox += [
            Delivery(new_id("evt_"), msgspec.json.encode(webhook).decode(), next_at=now_s, first_at=now_s)
            for webhook in events(self._state, event, payment, refund)
        ]

    def _deliver_copies(self, delivery: Delivery) -> bool:
        acknowledged = [self._deliver(delivery) for _ in range(self.copies_per_event)]
        return all(acknowledged)

    def _deliver(self, delivery: Delivery) -> bool:
        body = delivery.body.encode()
        headers = {
            "Content-Type": "application/json",
            "X-Razorpay-Signature": self.sign(body),
            "x-razorpay-event-id": delivery.event_id,
        }
        try:
            response = self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            log.info("a webhook was not delivered, it will be retried: %s", type(error).__name__)
            return False
        if not response.is_success:
            log.info("a webhook was answered with %d, it will be retried", response.status_code)
        return response.is_success
