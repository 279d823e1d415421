"""The clock and new ids of production."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present moment: the one clock of the service."""
    return datetime.now(UTC)


def new_id() -> str:
    """Return a random request id."""
    return str(uuid.uuid4())
