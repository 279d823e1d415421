"""Errors of queries."""

from __future__ import annotations

from domain.shared.errors import LedgerError


class RunNotFound(LedgerError):
    """The organisation has no usage of this run."""


class PhotoEventNotFound(LedgerError):
    """The organisation has no usage of this photo event."""
