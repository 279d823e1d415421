"""Errors of the projections, beside those of `domain.errors`."""

from __future__ import annotations

from domain.errors import LedgerError, StoreError


class RunUnknown(LedgerError):
    """The organisation has no usage of this run."""


class PhotoEventUnknown(LedgerError):
    """The organisation has no usage of this photo event."""


class ProjectionMoved(StoreError):
    """A projection does not stand where it was expected: another runner or a rebuild moved it."""


class RebuildRefused(StoreError):
    """The rebuild cannot start or finish now."""
