"""Facts of an organisation's history that change no credits: who opened or closed a way in, or a way out, or
changed who invoices are made out to.

Ids and digests only. A key's id is its visible prefix; an endpoint's address may hold secrets, so all that is
kept of it is a digest.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

if TYPE_CHECKING:
    from domain.credits.organisation import Organisation


class _AuditEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    recorded_at: datetime
    actor: str | None
    cause: str

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        pass


class ApiKeyIssued(_AuditEvent, frozen=True, array_like=True, gc=False):
    """A program of the organisation may read it, with this key."""

    key_id: str


class ApiKeyRevoked(_AuditEvent, frozen=True, array_like=True, gc=False):
    """A key is refused from now on."""

    key_id: str


class WebhookEndpointAdded(_AuditEvent, frozen=True, array_like=True, gc=False):
    """The organisation hears of its credits at an address; `url_digest` is SHA-256 of it, in hex."""

    endpoint_id: str
    url_digest: str


class WebhookEndpointRemoved(_AuditEvent, frozen=True, array_like=True, gc=False):
    """Nothing is sent to an endpoint any more, and its address is forgotten."""

    endpoint_id: str


class WebhookSecretRotated(_AuditEvent, frozen=True, array_like=True, gc=False):
    """An endpoint's deliveries are signed with a new secret, and for a while with the one before as well."""

    endpoint_id: str


class WebhookEndpointDisabled(_AuditEvent, frozen=True, array_like=True, gc=False):
    """Nothing is sent to an endpoint until it is enabled: all attempts since `failing_since` had failed, or
    the receiver said that it is gone.
    """

    endpoint_id: str
    failing_since: datetime


class WebhookEndpointEnabled(_AuditEvent, frozen=True, array_like=True, gc=False):
    """What happens from now on is sent to an endpoint again."""

    endpoint_id: str


class BillingDetailsChanged(_AuditEvent, frozen=True, array_like=True, gc=False):
    """Who invoices are made out to is somebody else. The details lie beside the log.

    `digest` is of the details and a salt that is kept with them; None: they were erased.
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
