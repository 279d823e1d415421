"""The production clock and id generator."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the current time, in UTC. The service has no other clock."""
    return datetime.now(UTC)


def new_id() -> str:
    """Return a random request id."""
    return str(uuid.uuid4())
