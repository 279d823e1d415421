"""Delivers the sandbox's webhooks as Razorpay does: signed, at least once, in no promised order."""

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
    """Takes what the book tells, and delivers it until it is acknowledged. One thread runs it."""

    def __init__(self, state: SandboxState, url: str, secret: str, *, retries_after_s: float = 1.0) -> None:
        self._state = state
        self._url = url
        self._secret = secret.encode()
        self._retries_after_s = retries_after_s
        self._client = httpx.Client(timeout=_RESPONSE_TIMEOUT_S)
        self.copies_per_event = 1
        """How often each webhook is delivered, although it was acknowledged."""
        self.sends_newest_first = False
        state.on_payment = self._enqueue

    def run(self, stop: Event) -> None:
        """Capture what is due and deliver until told to stop."""
        while not stop.wait(EVERY_S):
            self._state.capture_due()
            self.deliver_due()
        self._client.close()

    def deliver_due(self) -> None:
        """Try what is due once."""
        now_s = self._state.clock_s()
        due = [delivery for delivery in self._state.contents.outbox if delivery.next_at <= now_s]
        for delivery in reversed(due) if self.sends_newest_first else due:
            acknowledged = self._deliver_copies(delivery)
            with self._state.transaction() as contents:
                if acknowledged or now_s - delivery.first_at > _GIVE_UP_AFTER_S:
                    contents.outbox.remove(delivery)
                else:
                    waits_s = min(self._retries_after_s * 2**delivery.tries, _RETRY_MAX_S)
                    delivery.tries += 1
                    delivery.next_at = now_s + waits_s

    def sign(self, body: bytes) -> str:
        """Return the signature of a body, as `X-Razorpay-Signature` carries it."""
        return hmac.new(self._secret, body, sha256).hexdigest()

    def _enqueue(self, event: str, payment: Payment, refund: Refund | None) -> None:
        now_s = self._state.clock_s()
        self._state.contents.outbox += [
            Delivery(new_id("evt_"), msgspec.json.encode(told).decode(), next_at=now_s, first_at=now_s)
            for told in events(self._state, event, payment, refund)
        ]

    def _deliver_copies(self, delivery: Delivery) -> bool:
        answers = [self._deliver(delivery) for _ in range(self.copies_per_event)]
        return all(answers)

    def _deliver(self, delivery: Delivery) -> bool:
        body = delivery.body.encode()
        headers = {
            "Content-Type": "application/json",
            "X-Razorpay-Signature": self.sign(body),
            "x-razorpay-event-id": delivery.event_id,
        }
        try:
            answer = self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            log.info("a webhook is not taken, and comes again: %s", type(error).__name__)
            return False
        if not answer.is_success:
            log.info("a webhook is answered with %d, and comes again", answer.status_code)
        return answer.is_success
