"""The bar chart of daily usage: SVG coordinates. The stylesheet has all styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from projections.credits.read_models import DayUsage

WIDTH: Final = 900
HEIGHT: Final = 200
LEFT: Final = 64
RIGHT: Final = 14
BOTTOM: Final = 26
TOP: Final = 10
_LINES: Final = 4
_LABELS_TARGET: Final = 6
_ROUND: Final = (1, 2, 5)


@dataclass(frozen=True)
class Bar:
    """The bar of one day. `label` is whether the axis shows the day."""

    day: date
    credits: int
    photos: int
    x: float
    y: float
    width: float
    height: float
    label: bool

    @property
    def middle(self) -> float:
        """The x coordinate of its label."""
        return round(self.x + self.width / 2, 1)


@dataclass(frozen=True)
class Chart:
    """Bars and grid lines. A line is its number of credits and its y coordinate."""

    bars: list[Bar]
    lines: list[tuple[int, float]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    baseline: int = HEIGHT - BOTTOM

    @property
    def total(self) -> int:
        """Credits of all bars."""
        return sum(bar.credits for bar in self.bars)

    @property
    def highest(self) -> Bar:
        """The day with the most credits."""
        return max(self.bars, key=lambda bar: bar.credits)


def chart_of(days: Sequence[DayUsage]) -> Chart:
    """Return the chart of at least one consecutive day."""
    step = _line_step(max(day.credits for day in days))
    top_line = step * _LINES
    space = HEIGHT - TOP - BOTTOM
    slot = (WIDTH - LEFT - RIGHT) / len(days)
    every = max(1, round(len(days) / _LABELS_TARGET))
    last = len(days) - 1
    bars = []
    for number, day in enumerate(days):
        height = round(day.credits / top_line * space, 1)
        bars.append(
            Bar(
                day.day,
                day.credits,
                day.photos,
                x=round(LEFT + slot * number + slot * 0.14, 1),
                y=round(HEIGHT - BOTTOM - height, 1),
                width=round(slot * 0.72, 1),
                height=height,
                label=(last - number) % every == 0,
            )
        )
    lines = [
        (step * number, round(HEIGHT - BOTTOM - space * number / _LINES, 1)) for number in range(_LINES + 1)
    ]
    return Chart(bars, lines)


def _line_step(highest: int) -> int:
    """Return the distance between two grid lines in credits: a round number, so that the highest bar fits."""
    magnitude = 1
    while True:
        for factor in _ROUND:
            if factor * magnitude * _LINES >= highest:
                return factor * magnitude
        magnitude *= 10
