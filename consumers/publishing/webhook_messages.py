"""Webhook messages: the public form of an event in the envelope of Standard Webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from consumers.publishing.public_events import mapping_of, public_data
from consumers.publishing.public_mapping import in_utc
from domain.shared.aggregate import DomainEvent

TEST_TYPE: Final = "credit_ledger.webhook_test.v1"


class WebhookMessage(msgspec.Struct, frozen=True):
    """A message for an endpoint. `message_id` is the same at every attempt; `body` is JSON."""

    message_id: str
    type: str
    body: bytes


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    timestamp: datetime
    data: dict[str, Any]


def event_message(
    organisation_id: str, stream: str, version: int, position: int, event: DomainEvent
) -> WebhookMessage:
    """Return the message of an event. Type and data are the same as on the events topic.

    Raises:
        UnknownEventType: the event has no public form.
    """
    return _message(
        f"msg_{stream}_{version}",
        mapping_of(event).type,
        event.recorded_at,
        {"organisation_id": organisation_id, **public_data(version, position, event)},
    )


def endpoint_test_message(
    organisation_id: str, endpoint_id: str, number: str, at: datetime
) -> WebhookMessage:
    """Return a test message, which has no content, to check a receiver."""
    data = {"organisation_id": organisation_id, "endpoint_id": endpoint_id}
    return _message(f"msg_test_{number}", TEST_TYPE, at, data)


def _message(message_id: str, type_: str, at: datetime, data: dict[str, Any]) -> WebhookMessage:
    return WebhookMessage(message_id, type_, msgspec.json.encode(_Envelope(type_, in_utc(at), data)))
