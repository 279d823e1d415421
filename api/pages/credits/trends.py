"""What the monthly cards tell, and what to do about it: the readings of the user guide."""

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
"""A month so many times the median of the others is a spike."""
GROWTH: Final = 1.15
"""So many times the first finished month, without a month below the one before, is steady growth."""
FLAT_SPREAD: Final = 0.25
"""Months that lie within this share of their mean are flat."""
FEW_RUNS: Final = 40
"""Runs a month up to which a flat usage is one of few transactions."""
OUTLIER_SPREADS: Final = 3
"""A run so many times the middle half's spread above it is an outlier: Tukey's far fence."""
OUTLIER_RUNS_MIN: Final = 10


class Pattern(StrEnum):
    """What the cards look like."""

    EMPTY = "empty"
    SPIKE = "spike"
    GROWING = "growing"
    FLAT = "flat"
    GAPS = "gaps"
    MIXED = "mixed"


@dataclass(frozen=True)
class Trend:
    """A reading; `month` is the one it is about, if it is about one."""

    pattern: Pattern
    month: date | None = None


def read_trend(months: Sequence[MonthUsage]) -> Trend:
    """Return the reading of the current month and the finished ones before it, newest first.

    The current month is no whole month: it counts only where it is a spike already, or where it falls behind
    the same point of the month before, and so is no growth.
    """
    current, finished = months[0], months[1:]
    if not any(month.credits for month in months):
        return Trend(Pattern.EMPTY)
    if spike := _spike(months):
        return Trend(Pattern.SPIKE, spike.month)
    if not all(month.credits for month in finished):
        return Trend(Pattern.GAPS)
    if _grows([month.credits for month in reversed(finished)]) and _keeps_up(current, finished[0]):
        return Trend(Pattern.GROWING)
    if _is_flat([month.credits for month in finished]):
        return Trend(Pattern.FLAT)
    return Trend(Pattern.MIXED)


def same_point_change(months: Sequence[MonthUsage]) -> float | None:
    """Return how much more (0.1: a tenth) was used than up to the same point of the month before."""
    current, before = months[0], months[1]
    if not before.to_same_point:
        return None
    return current.to_same_point / before.to_same_point - 1


def outlier_threshold(run_credits: Sequence[int]) -> int | None:
    """Return from how many credits on a run is far above the usual; None while too few are known."""
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


def _keeps_up(current: MonthUsage, before: MonthUsage) -> bool:
    return current.to_same_point >= before.to_same_point


def _is_flat(credits_by_month: Sequence[int]) -> bool:
    mean = sum(credits_by_month) / len(credits_by_month)
    return max(credits_by_month) - min(credits_by_month) <= FLAT_SPREAD * mean
