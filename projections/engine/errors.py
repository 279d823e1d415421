"""Errors of the projections, beside those of `domain.shared.errors`."""

from __future__ import annotations

from domain.shared.errors import StoreError


class ProjectionCheckpointConflict(StoreError):
    """A projection does not stand where it was expected: another runner or a rebuild moved it."""


class RebuildConflict(StoreError):
    """The rebuild cannot start or finish now."""
