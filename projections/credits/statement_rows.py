"""Rows of the projection `statement`, and the SQL that writes them to its tables.

All rows but transactions are increments: the SQL adds them to the stored values.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

import msgspec

from domain.pricing.rate_card import UsageType
from projections.credits.read_models import TransactionKind, TransactionType


class TransactionRow(msgspec.Struct, kw_only=True):
    """What a batch changes in a run, or a new addition. Lists are complete. `details` is JSON in hex."""

    stream: str
    kind: TransactionKind
    reference: str
    type: TransactionType
    credits: int
    occurred_at: datetime
    recorded_at: datetime
    actor: str | None
    month: date | None = None
    photos: int | None = None
    usage_types: list[UsageType] | None = None
    event_ids: list[int] | None = None
    event_name: str | None = None
    first_version: int
    last_version: int
    details: str | None = None


class MonthRow(msgspec.Struct):
    """What a batch changes in the totals of a month."""

    stream: str
    month: date
    credits: int = 0
    photos: int = 0
    runs: int = 0
    events: int = 0


class DayRow(msgspec.Struct):
    """What a batch changes in a day of a month."""

    stream: str
    day: date
    month: date
    credits: int = 0
    photos: int = 0


class PhotoEventRow(msgspec.Struct):
    """What a batch changes in a photo event, in a month or (None) in total.

    `name_version` is the version of the event that `event_name` is from."""

    stream: str
    month: date | None
    event_id: int
    event_name: str
    first_occurred_at: datetime
    last_occurred_at: datetime
    credits: int = 0
    photos: int = 0
    runs: int = 0
    name_version: int = 0


ADD_TRANSACTIONS: Final = """
    INSERT INTO transactions AS existing
    SELECT * FROM json_populate_recordset(NULL::transactions, %s)
    ON CONFLICT (stream, kind, reference) DO UPDATE SET
        credits = existing.credits + excluded.credits,
        photos = existing.photos + excluded.photos,
        occurred_at = least(existing.occurred_at, excluded.occurred_at),
        usage_types = excluded.usage_types,
        event_ids = excluded.event_ids,
        last_version = excluded.last_version
"""

ADD_MONTHS: Final = """
    INSERT INTO usage_months AS existing
    SELECT * FROM json_populate_recordset(NULL::usage_months, %s)
    ON CONFLICT (stream, month) DO UPDATE SET
        credits = existing.credits + excluded.credits,
        photos = existing.photos + excluded.photos,
        runs = existing.runs + excluded.runs,
        events = existing.events + excluded.events
"""

ADD_DAYS: Final = """
    INSERT INTO usage_days AS existing
    SELECT * FROM json_populate_recordset(NULL::usage_days, %s)
    ON CONFLICT (stream, day, month) DO UPDATE SET
        credits = existing.credits + excluded.credits,
        photos = existing.photos + excluded.photos
"""

ADD_EVENTS: Final = """
    INSERT INTO event_usage AS existing
    SELECT * FROM json_populate_recordset(NULL::event_usage, %s)
    ON CONFLICT (stream, month, event_id) DO UPDATE SET
        event_name = excluded.event_name,
        credits = existing.credits + excluded.credits,
        photos = existing.photos + excluded.photos,
        runs = existing.runs + excluded.runs,
        first_occurred_at = least(existing.first_occurred_at, excluded.first_occurred_at),
        last_occurred_at = greatest(existing.last_occurred_at, excluded.last_occurred_at)
"""

ADD_EVENT_TOTALS: Final = """
    INSERT INTO event_totals AS existing
    SELECT * FROM json_populate_recordset(NULL::event_totals, %s)
    ON CONFLICT (stream, event_id) DO UPDATE SET
        event_name = excluded.event_name,
        credits = existing.credits + excluded.credits,
        photos = existing.photos + excluded.photos,
        runs = existing.runs + excluded.runs,
        first_occurred_at = least(existing.first_occurred_at, excluded.first_occurred_at),
        last_occurred_at = greatest(existing.last_occurred_at, excluded.last_occurred_at)
"""
