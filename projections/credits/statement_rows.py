"""Rows of the projection `statement`, and the statements that bring them into its tables.

All but transactions are increments: the statements add them to what the tables hold.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

import msgspec

from domain.pricing.rate_card import UsageType
from projections.credits.read_models import TransactionKind, TransactionType


class TransactionRow(msgspec.Struct, kw_only=True):
    """What a batch adds to a run, or an addition; lists are complete. `details` is hex of JSON."""

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
    """What a batch adds to a card."""

    stream: str
    month: date
    credits: int = 0
    photos: int = 0
    runs: int = 0
    events: int = 0


class DayRow(msgspec.Struct):
    """What a batch adds to a day of a month."""

    stream: str
    day: date
    month: date
    credits: int = 0
    photos: int = 0


class PhotoEventRow(msgspec.Struct):
    """What a batch adds to a photo event, in a month or (None) over all; named as of `name_version`."""

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
    INSERT INTO transactions AS held
    SELECT * FROM json_populate_recordset(NULL::transactions, %s)
    ON CONFLICT (stream, kind, reference) DO UPDATE SET
        credits = held.credits + excluded.credits,
        photos = held.photos + excluded.photos,
        occurred_at = least(held.occurred_at, excluded.occurred_at),
        usage_types = excluded.usage_types,
        event_ids = excluded.event_ids,
        last_version = excluded.last_version
"""

ADD_MONTHS: Final = """
    INSERT INTO usage_months AS held
    SELECT * FROM json_populate_recordset(NULL::usage_months, %s)
    ON CONFLICT (stream, month) DO UPDATE SET
        credits = held.credits + excluded.credits,
        photos = held.photos + excluded.photos,
        runs = held.runs + excluded.runs,
        events = held.events + excluded.events
"""

ADD_DAYS: Final = """
    INSERT INTO usage_days AS held
    SELECT * FROM json_populate_recordset(NULL::usage_days, %s)
    ON CONFLICT (stream, day, month) DO UPDATE SET
        credits = held.credits + excluded.credits,
        photos = held.photos + excluded.photos
"""

ADD_EVENTS: Final = """
    INSERT INTO event_usage AS held
    SELECT * FROM json_populate_recordset(NULL::event_usage, %s)
    ON CONFLICT (stream, month, event_id) DO UPDATE SET
        event_name = excluded.event_name,
        credits = held.credits + excluded.credits,
        photos = held.photos + excluded.photos,
        runs = held.runs + excluded.runs,
        first_occurred_at = least(held.first_occurred_at, excluded.first_occurred_at),
        last_occurred_at = greatest(held.last_occurred_at, excluded.last_occurred_at)
"""

ADD_EVENT_TOTALS: Final = """
    INSERT INTO event_totals AS held
    SELECT * FROM json_populate_recordset(NULL::event_totals, %s)
    ON CONFLICT (stream, event_id) DO UPDATE SET
        event_name = excluded.event_name,
        credits = held.credits + excluded.credits,
        photos = held.photos + excluded.photos,
        runs = held.runs + excluded.runs,
        first_occurred_at = least(held.first_occurred_at, excluded.first_occurred_at),
        last_occurred_at = greatest(held.last_occurred_at, excluded.last_occurred_at)
"""
