"""The public forms of the audit events: API keys, webhook endpoints and billing details."""

from __future__ import annotations

from typing import Final

from consumers.publishing.public_mapping import Data, PublicMapping, PublicMappings, in_utc
from domain.credits import audit_events


def _billing_details_changed(event: audit_events.BillingDetailsChanged) -> Data:
    return {"on_file": event.digest is not None}


def _api_key(event: audit_events.ApiKeyIssued | audit_events.ApiKeyRevoked) -> Data:
    return {"key_id": event.key_id}


def _webhook_endpoint_added(event: audit_events.WebhookEndpointAdded) -> Data:
    return {"endpoint_id": event.endpoint_id, "url_digest": event.url_digest}


def _webhook_endpoint(
    event: audit_events.WebhookEndpointRemoved
    | audit_events.WebhookSecretRotated
    | audit_events.WebhookEndpointEnabled,
) -> Data:
    return {"endpoint_id": event.endpoint_id}


def _webhook_endpoint_disabled(event: audit_events.WebhookEndpointDisabled) -> Data:
    return {"endpoint_id": event.endpoint_id, "failing_since": in_utc(event.failing_since)}


AUDIT_MAPPINGS: Final[PublicMappings] = {
    audit_events.BillingDetailsChanged: PublicMapping(
        "credit_ledger.billing_details_changed.v1", _billing_details_changed
    ),
    audit_events.ApiKeyIssued: PublicMapping("credit_ledger.api_key_issued.v1", _api_key),
    audit_events.ApiKeyRevoked: PublicMapping("credit_ledger.api_key_revoked.v1", _api_key),
    audit_events.WebhookEndpointAdded: PublicMapping(
        "credit_ledger.webhook_endpoint_added.v1", _webhook_endpoint_added
    ),
    audit_events.WebhookEndpointRemoved: PublicMapping(
        "credit_ledger.webhook_endpoint_removed.v1", _webhook_endpoint
    ),
    audit_events.WebhookSecretRotated: PublicMapping(
        "credit_ledger.webhook_secret_rotated.v1", _webhook_endpoint
    ),
    audit_events.WebhookEndpointDisabled: PublicMapping(
        "credit_ledger.webhook_endpoint_disabled.v1", _webhook_endpoint_disabled
    ),
    audit_events.WebhookEndpointEnabled: PublicMapping(
        "credit_ledger.webhook_endpoint_enabled.v1", _webhook_endpoint
    ),
}
