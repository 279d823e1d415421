"""The public form of one event class, and the conversions that several forms share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import msgspec

Data = dict[str, Any]


class PublicMapping(msgspec.Struct, frozen=True):
    """The public form of an event class: its CloudEvents type, and its own fields of `data`."""

    type: str
    fields: Callable[[Any], Data]


PublicMappings = Mapping[type[Any], PublicMapping]


def in_utc(at: datetime) -> datetime:
    """Return the same time in UTC."""
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def iso_day(day: date) -> str:
    """Return a day as `YYYY-MM-DD`."""
    return day.isoformat()
