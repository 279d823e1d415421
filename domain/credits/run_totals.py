"""What each run has used so far at a fractional rate: the credits of a run are rounded up once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final

import msgspec

from domain.credits.events import UsageCharged
from domain.pricing.rate_card import UsageType, credits_for

RUN_TOTAL_RETENTION: Final = timedelta(days=90)
"""Totals and settlements of runs without messages for this long are dropped."""


class RunTotal(msgspec.Struct, array_like=True):
    """Photos and credits of a run so far at one fractional rate."""

    photos: int
    credits: int
    last_recorded_at: datetime


RunKey = tuple[str, UsageType, int]
"""Run id, usage type, rate in millionths: what is rounded up together."""


def credits_of_run(totals: Mapping[RunKey, RunTotal], key: RunKey, photos: int) -> int:
    """Return what more photos of a run cost: all of its photos so far, less what it was charged."""
    so_far = totals.get(key)
    if so_far is None:
        return credits_for(photos, key[2])
    return credits_for(so_far.photos + photos, key[2]) - so_far.credits


def add_to_run_totals(totals: dict[RunKey, RunTotal], charged: UsageCharged) -> None:
    """Count a charge at a fractional rate, and drop the totals of old runs."""
    key = (charged.run_id, charged.usage_type, charged.rate_millionths)
    before = totals.pop(key, None)
    if before is None:
        _drop_old_totals(totals, charged.recorded_at - RUN_TOTAL_RETENTION)
        before = RunTotal(0, 0, charged.recorded_at)
    # The total is replaced, never changed in place: a fork shares it.
    totals[key] = RunTotal(
        before.photos + charged.new_photos, before.credits + charged.credits, charged.recorded_at
    )


def _drop_old_totals(totals: dict[RunKey, RunTotal], oldest: datetime) -> None:
    # Each charge moves its run to the end, so the old runs are first.
    for key in list(takewhile(lambda key: totals[key].last_recorded_at < oldest, totals)):
        del totals[key]
