"""Usage messages for tests, with flat arguments."""

from __future__ import annotations

from datetime import datetime

from domain.credits.usage import PhotoEvent, Usage, UsageReport, User
from domain.pricing.rate_card import UsageType


def usage_report(
    *,
    source: str = "/photo-processing/worker-7",
    message_id: str,
    organisation_id: str = "org-4711",
    occurred_at: datetime,
    run_id: str = "run-88",
    usage_type: UsageType = UsageType.PHOTO_PROCESSING,
    photos: int,
    ai_search: bool = True,
    event_id: int = 1042,
    event_name: str = "City Marathon 2026",
    user: str | None = "u-17",
    hold_id: str | None = None,
) -> UsageReport:
    photo_event = PhotoEvent(event_id, event_name)
    person = None if user is None else User(user)
    usage = Usage(run_id, usage_type, photos, ai_search, photo_event, person, hold_id)
    return UsageReport.of(source, message_id, organisation_id, occurred_at, usage)
