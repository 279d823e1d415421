"""Webhooks of organisations: what is told, how it is signed, and when a delivery is tried again.

The format is that of Standard Webhooks, so that receivers verify it with a library of theirs:
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
"""Endpoints an organisation has at most."""
DELIVERIES_LISTED_MAX: Final = 50
OLD_SECRET_VALIDITY: Final = timedelta(days=1)
"""How long a secret that was replaced still signs, so that receivers can change over without a gap."""
FAILURE_PERIOD_MAX: Final = timedelta(days=5)
"""An endpoint that has only failed for so long is disabled; a message that old is given up."""
DELIVERY_RETENTION: Final = timedelta(days=30)
"""How long what became of a delivery can be looked up."""

WEBHOOK_EVENTS: Final = (
    BalanceWentLow,
    CreditsExhausted,
    CreditsReplenished,
    CreditsPurchased,
    AutoTopUpHeld,
    AutoTopUpSwitchedOff,
)
"""The facts that endpoints hear of."""

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with
_RETRY_AFTER_S: Final = (5, 20, 80, 320, 1_280, 5_120, 20_480, 28_800)
"""After the first failure, the second, ...; then always as long as the last: 8 hours."""
_ENDPOINT_PAUSE_S: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)


class Endpoint(msgspec.Struct, frozen=True):
    """Where an organisation hears of its credits. Nothing is sent while `disabled_at` is set."""

    endpoint_id: str
    url: str
    added_at: datetime
    added_by: str
    failing_since: datetime | None
    disabled_at: datetime | None


class Delivery(msgspec.Struct, frozen=True):
    """A message to an endpoint, and what has become of it.

    `next_attempt_at` None: it was delivered, or was given up.
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
        """Add an endpoint; return it and its secret, which is never seen again.

        Raises:
            InvalidInput: the address may not be called.
            WebhookEndpointLimitReached: the organisation has `ENDPOINTS_MAX`.
        """

    def of(self, organisation_id: str) -> list[Endpoint]:
        """Return the endpoints of an organisation, oldest first."""

    def remove(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> None:
        """Forget an endpoint, its address and its deliveries."""

    def rotate_secret(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> str:
        """Return a new secret; the one before signs as well for `OLD_SECRET_VALIDITY`."""

    def enable(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> Endpoint:
        """Send to an endpoint again what happens from now on. One that is enabled stays as it is."""

    def send_test(self, organisation_id: str, endpoint_id: str, context: CommandContext) -> str:
        """Queue a test message and return its id.

        Raises:
            WebhookEndpointNotEnabled: nothing is sent there.
        """

    def deliveries(self, organisation_id: str, endpoint_id: str) -> list[Delivery]:
        """Return the last `DELIVERIES_LISTED_MAX` deliveries, newest first."""


def signed_headers(
    secrets: Sequence[str], message_id: str, body: bytes, sent_at: datetime
) -> Mapping[str, str]:
    """Return the headers that let a receiver know who sent a message, and when.

    There is a signature for each live secret, `v1,` and base64 of HMAC-SHA256, with a space between.
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
    """Return when to try a message again after so many attempts, None to give it up.

    After 5 s, 20 s, 80 s, ... at most 8 h, each up to a fifth longer by `jitter` (0 to 1), so that what
    failed together is not tried again together.
    """
    if failed_at - created_at >= FAILURE_PERIOD_MAX:
        return None
    return failed_at + _pause(_RETRY_AFTER_S, attempts, jitter)


def endpoint_paused_until(failed_at: datetime, *, failures: int, jitter: float) -> datetime:
    """Return when to send anything to an endpoint again that has failed so often in a row.

    A second, then twice as long each time, at most 5 minutes: a dead receiver with many messages costs few
    attempts.
    """
    return failed_at + _pause(_ENDPOINT_PAUSE_S, failures, jitter)


def _pause(seconds: Sequence[int], times: int, jitter: float) -> timedelta:
    return timedelta(seconds=seconds[min(times, len(seconds)) - 1] * (1 + jitter / 5))
