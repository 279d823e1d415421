"""The trend of the monthly cards, as the user guide defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import pairwise
from math import ceil
from statistics import median, quantiles
from typing import Final

from projections.credits.read_models import MonthUsage

SPIKE_TIMES: Final = 2.5
"""A month is a spike if it is this many times the median of the other months."""
GROWTH: Final = 1.15
"""Growth is steady if the last month is this many times the first one, and no month falls."""
FLAT_SPREAD: Final = 0.25
"""Usage is flat if the months differ by at most this share of their mean."""
FEW_RUNS: Final = 40
"""Flat usage has "few transactions" up to this number of runs per month."""
OUTLIER_SPREADS: Final = 3
"""Number of interquartile ranges above the upper quartile: Tukey's outer fence."""
OUTLIER_RUNS_MIN: Final = 10


class Pattern(StrEnum):
    """The pattern of the monthly usage."""

    EMPTY = "empty"
    SPIKE = "spike"
    GROWING = "growing"
    FLAT = "flat"
    GAPS = "gaps"
    MIXED = "mixed"


@dataclass(frozen=True)
class Trend:
    """The trend. `month` is the month of a spike."""

    pattern: Pattern
    month: date | None = None


def read_trend(months: Sequence[MonthUsage]) -> Trend:
    """Return the trend of the current month and of the finished months before it, newest first.

    The current month is incomplete. It counts only if it is already a spike, or if it is below the same point
    of the previous month, which rules out growth.
    """
    current, finished = months[0], months[1:]
    if not any(month.credits for month in months):
        return Trend(Pattern.EMPTY)
    if spike := _spike(months):
        return Trend(Pattern.SPIKE, spike.month)
    if not all(month.credits for month in finished):
        return Trend(Pattern.GAPS)
    if _grows([month.credits for month in reversed(finished)]) and _uses_at_least_as_much(
        current, finished[0]
    ):
        return Trend(Pattern.GROWING)
    if _is_flat([month.credits for month in finished]):
        return Trend(Pattern.FLAT)
    return Trend(Pattern.MIXED)


def same_point_change(months: Sequence[MonthUsage]) -> float | None:
    """Return the relative change (0.1 is 10 %) against the same point of the previous month."""
    current, before = months[0], months[1]
    if not before.to_same_point:
        return None
    return current.to_same_point / before.to_same_point - 1


def outlier_threshold(run_credits: Sequence[int]) -> int | None:
    """Return the credits from which a run is an outlier, or None with too few runs."""
    if len(run_credits) < OUTLIER_RUNS_MIN:
        return None
    lower, _, upper = quantiles(run_credits, n=4)
    return max(1, ceil(upper + OUTLIER_SPREADS * (upper - lower)))


def _spike(months: Sequence[MonthUsage]) -> MonthUsage | None:
    highest = max(months, key=lambda month: month.credits)
    others = [month.credits for month in months if month is not highest and not month.current]
    usual = median(others) if others else 0
    return highest if usual and highest.credits >= SPIKE_TIMES * usual else None


def _grows(credits_by_month: Sequence[int]) -> bool:
    never_falls = all(later >= earlier for earlier, later in pairwise(credits_by_month))
    return never_falls and credits_by_month[-1] >= GROWTH * credits_by_month[0]


def _uses_at_least_as_much(current: MonthUsage, before: MonthUsage) -> bool:
    return current.to_same_point >= before.to_same_point


def _is_flat(credits_by_month: Sequence[int]) -> bool:
    mean = sum(credits_by_month) / len(credits_by_month)
    return max(credits_by_month) - min(credits_by_month) <= FLAT_SPREAD * mean
