"""What the pipeline reports: photos of a run that were processed."""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.rate_card import UsageType


class UsageReport(msgspec.Struct, frozen=True, gc=False):
    """One usage message, whatever wire it came over.

    (`source`, `message_id`) is its identity for ever. `user` None means the System triggered the run.
    `photos` counts the photos processed in this message alone, 0 to 1,000,000.
    """

    source: str
    message_id: str
    run_id: str
    usage_type: UsageType
    photos: int
    ai_search: bool
    event_id: int
    event_name: str
    user: str | None
    hold_id: str | None
    occurred_at: datetime

    @property
    def substance(self) -> tuple[str, UsageType, int, bool, int]:
        """The fields that affect the charge: two messages of one identity must agree in them."""
        return (self.run_id, self.usage_type, self.photos, self.ai_search, self.event_id)
