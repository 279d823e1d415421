"""Refusals about webhook endpoints."""

from __future__ import annotations

from domain.shared.errors import LedgerError


class WebhookEndpointNotFound(LedgerError):
    """The organisation has no webhook endpoint of this id."""


class WebhookEndpointLimitReached(LedgerError):
    """The organisation has as many webhook endpoints as it may."""


class WebhookEndpointNotEnabled(LedgerError):
    """Nothing is sent to the endpoint: it failed for days, or said that it is gone. Enable it first."""
