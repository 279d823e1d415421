"""Webhooks of organisations: the events sent, their signatures, and the times of delivery attempts.

The format is Standard Webhooks, so receivers can verify messages with an existing library:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Protocol

import msgspec

from domain.credits.auto_top_up_events import AutoTopUpHeld, AutoTopUpSwitchedOff
from domain.credits.events import (
    BalanceWentLow,
    CreditsExhausted,
    CreditsPurchased,
    CreditsReplenished,
)
from domain.shared.command_context import CommandContext

ENDPOINTS_MAX: Final = 5
"""The maximum number of endpoints per organisation."""
DELIVERIES_LISTED_MAX: Final = 50
OLD_SECRET_VALIDITY: Final = timedelta(days=1)
"""How long a replaced secret still signs, so that receivers can change over without a gap."""
FAILURE_PERIOD_MAX: Final = timedelta(days=5)
"""An endpoint that has only failed for this time is disabled; a message of this age is given up."""
DELIVERY_RETENTION: Final = timedelta(days=30)
"""How long the result of a delivery can be looked up."""

WEBHOOK_EVENTS: Final = (
    BalanceWentLow,
    CreditsExhausted,
    CreditsReplenished,
    CreditsPurchased,
    AutoTopUpHeld,
    AutoTopUpSwitchedOff,
)
"""The events that are sent to endpoints."""

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with
_RETRY_AFTER_S: Final = (5, 20, 80, 320, 1_280, 5_120, 20_480, 28_800)
"""The delay after the first failure, the second, and so on. Later delays equal the last one: 8 hours."""
_ENDPOINT_PAUSE_S: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)


class Endpoint(msgspec.Struct, frozen=True):
    """A webhook endpoint of an organisation. Nothing is sent while `disabled_at` is set."""

    endpoint_id: str
    url: str
    added_at: datetime
    added_by: str
    failing_since: datetime | None
    disabled_at: datetime | None


class Delivery(msgspec.Struct, frozen=True):
    """A message to an endpoint, and its delivery state.

    If `next_attempt_at` is None, the message was delivered or given up.
    """

    message_id: str
    type: str
    created_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    delivered_at: datetime | None

    @property
    def status(self) -> str:
        """Return pending, delivered or given_up."""
        if self.delivered_at is not None:
            return "delivered"
        return "given_up" if self.next_attempt_at is None else "pending"


class WebhookEndpoints(Protocol):
    """The endpoints of all organisations. Each change is an event of its organisation.

    Raises (all methods):
        WebhookEndpointNotFound: the organisation has no endpoint of this id.
        OrganisationNotFound, StoreUnavailable.
    """

    def add(self, organisation_id: str, url: str, context: CommandContext) -> tuple[Endpoint, str]:
        """Add an endpoint. Return it and its secret, which cannot be read again.

        Raises:
            InvalidInput: the URL is not allowed.
            WebhookEndpointLimitReached: the organisation has `ENDPOINTS_MAX`.
        """

    def of(self, organisation_id: str) -> list[Endpoint]:
        """Return the endpoints of an organisation, oldest first."""

    def remove(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> None:
        """Delete an endpoint, its URL and its deliveries."""

    def rotate_secret(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> str:
        """Return a new secret. The previous one also signs for `OLD_SECRET_VALIDITY`."""

    def enable(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> Endpoint:
        """Send new events to an endpoint again, from now on. An enabled endpoint does not change."""

    def send_test(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> str:
        """Queue a test message and return its id.

        Raises:
            WebhookEndpointNotEnabled: the endpoint is disabled.
        """

    def deliveries(self, organisation_id: str, endpoint_id: str) -> list[Delivery]:
        """Return the last `DELIVERIES_LISTED_MAX` deliveries, newest first."""


def signed_headers(
    secrets: Sequence[str], message_id: str, body: bytes, sent_at: datetime
) -> Mapping[str, str]:
    """Return the headers that prove the sender and the time of a message to its receiver.

    There is one signature per live secret, separated by spaces: `v1,` and base64 of HMAC-SHA256.
    """
    timestamp = str(int(sent_at.timestamp()))
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (
        b64encode(hmac.digest(b64decode(secret.removeprefix(SECRET_PREFIX)), content, sha256)).decode()
        for secret in secrets
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def retry_at(failed_at: datetime, *, attempts: int, created_at: datetime, jitter: float) -> datetime | None:
    """Return the time of the next delivery attempt after so many attempts, or None to give up.

    The delays are 5 s, 20 s, 80 s, ... at most 8 h. `jitter` (0 to 1) makes each up to a fifth longer, so
    that messages that failed together are not retried together.
    """
    if failed_at - created_at >= FAILURE_PERIOD_MAX:
        return None
    return failed_at + _pause(_RETRY_AFTER_S, attempts, jitter)


def endpoint_paused_until(failed_at: datetime, *, failures: int, jitter: float) -> datetime:
    """Return until when an endpoint is paused after so many consecutive failures.

    The pause is one second, then doubles each time, at most 5 minutes. So a dead receiver with many messages
    costs few attempts.
    """
    return failed_at + _pause(_ENDPOINT_PAUSE_S, failures, jitter)


def _pause(seconds: Sequence[int], times: int, jitter: float) -> timedelta:
    return timedelta(seconds=seconds[min(times, len(seconds)) - 1] * (1 + jitter / 5))
