"""Errors of the projection engine. More general ones are in `domain.shared.errors`."""

from __future__ import annotations

from domain.shared.errors import StoreError


class ProjectionCheckpointConflict(StoreError):
    """A projection's checkpoint is not the expected one: another runner or a rebuild moved it."""


class RebuildConflict(StoreError):
    """The rebuild cannot start or finish now."""
