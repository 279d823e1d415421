"""What endpoints are sent: the public form of an event, in the envelope that Standard Webhooks proposes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from consumers.public_events import form_of, in_utc, public_data
from domain.aggregate import Fact

TEST_TYPE: Final = "credit_ledger.webhook_test.v1"


class WebhookMessage(msgspec.Struct, frozen=True):
    """A message for an endpoint. `message_id` is the same however often it is sent; `body` is JSON."""

    message_id: str
    type: str
    body: bytes


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    timestamp: datetime
    data: dict[str, Any]


def event_message(
    organisation_id: str, stream: str, version: int, position: int, fact: Fact
) -> WebhookMessage:
    """Return the message of a fact: its type and data are those of the events topic.

    Raises:
        UnknownEventType: the fact has no public form.
    """
    return _message(
        f"msg_{stream}_{version}",
        form_of(fact).type,
        fact.recorded_at,
        {"organisation_id": organisation_id, **public_data(version, position, fact)},
    )


def trial_message(organisation_id: str, endpoint_id: str, number: str, at: datetime) -> WebhookMessage:
    """Return a message that says nothing, for a receiver to be tried with."""
    data = {"organisation_id": organisation_id, "endpoint_id": endpoint_id}
    return _message(f"msg_test_{number}", TEST_TYPE, at, data)


def _message(message_id: str, type_: str, at: datetime, data: dict[str, Any]) -> WebhookMessage:
    return WebhookMessage(message_id, type_, msgspec.json.encode(_Envelope(type_, in_utc(at), data)))
