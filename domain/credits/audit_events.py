"""Events that change no credits: who created or removed an access, a webhook endpoint or billing details.

They hold ids and digests only. A key's id is its visible prefix; an endpoint's address may contain secrets,
so the event has a digest of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, get_args

from domain.shared.aggregate import EventHeader


class ApiKeyIssued(EventHeader, frozen=True):
    """A program of the organisation may read its data with this key."""

    key_id: str


class ApiKeyRevoked(EventHeader, frozen=True):
    """An API key was revoked: requests with it are refused."""

    key_id: str


class WebhookEndpointAdded(EventHeader, frozen=True):
    """Events of the organisation are sent to an address; `url_digest` is its SHA-256, in hex."""

    endpoint_id: str
    url_digest: str


class WebhookEndpointRemoved(EventHeader, frozen=True):
    """An endpoint was removed: nothing is sent to it, and its address was deleted."""

    endpoint_id: str


class WebhookSecretRotated(EventHeader, frozen=True):
    """An endpoint has a new secret. For some time its deliveries are signed with the old one too."""

    endpoint_id: str


class WebhookEndpointDisabled(EventHeader, frozen=True):
    """Nothing is sent to an endpoint until it is enabled again.

    All attempts since `failing_since` had failed, or the receiver answered that it is gone.
    """

    endpoint_id: str
    failing_since: datetime


class WebhookEndpointEnabled(EventHeader, frozen=True):
    """Events from now on are sent to an endpoint again."""

    endpoint_id: str


class BillingDetailsChanged(EventHeader, frozen=True):
    """The recipient of invoices changed. The details themselves are not in the log.

    `digest` is the digest of the details and a salt that is stored with them; None: they were erased.
    """

    digest: str | None


AuditEvent = (
    ApiKeyIssued
    | ApiKeyRevoked
    | WebhookEndpointAdded
    | WebhookEndpointRemoved
    | WebhookSecretRotated
    | WebhookEndpointDisabled
    | WebhookEndpointEnabled
    | BillingDetailsChanged
)
AUDIT_EVENT_TYPES: Final[tuple[type[EventHeader], ...]] = get_args(AuditEvent)
