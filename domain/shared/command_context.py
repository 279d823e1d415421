"""The context of a command: actor, time and cause."""

from __future__ import annotations

from datetime import datetime

import msgspec

HeaderFields = tuple[datetime, str | None, str]
"""The first fields of every event, see `domain.shared.aggregate.EventHeader`."""


class CommandContext(msgspec.Struct, frozen=True):
    """The actor, time and cause of a command.

    `actor` is an opaque user id, or None for the System. `cause` is a request id. Neither is personal data.
    """

    at: datetime
    actor: str | None
    cause: str

    @property
    def event_header(self) -> HeaderFields:
        """The first fields of every event that the command records: see `aggregate.EventHeader`."""
        return self.at, self.actor, self.cause
