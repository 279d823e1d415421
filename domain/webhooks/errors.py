"""Errors about webhook endpoints."""

from __future__ import annotations

from domain.shared.errors import LedgerError


class WebhookEndpointNotFound(LedgerError):
    """The organisation has no webhook endpoint of this id."""


class WebhookEndpointLimitReached(LedgerError):
    """The organisation has the maximum number of webhook endpoints."""


class WebhookEndpointNotEnabled(LedgerError):
    """The endpoint is disabled: it failed for days, or answered 410 Gone. Enable it first."""
