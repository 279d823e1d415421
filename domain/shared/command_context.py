"""Who asked for a decision, when, and because of what."""

from __future__ import annotations

from datetime import datetime

import msgspec


class CommandContext(msgspec.Struct, frozen=True):
    """Who asked for a decision, when, and by which message or request.

    `actor` is an opaque user id, None for the System; `cause` a request id. Neither is personal.
    """

    at: datetime
    actor: str | None
    cause: str

    @property
    def event_header(self) -> tuple[datetime, str | None, str]:
        """The first fields of every event that the command records: see `aggregate.EventHeader`."""
        return self.at, self.actor, self.cause
