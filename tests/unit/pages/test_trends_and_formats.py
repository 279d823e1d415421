"""Trends, recommendations and number formats: pure functions of the pages."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from api.pages.credits.charts import chart_of
from api.pages.credits.recommendations import compare_with_pro, top_up
from api.pages.credits.trends import Pattern, outlier_threshold, read_trend, same_point_change
from api.pages.shell import labels
from api.pages.shell.formats import formats_of
from api.pages.shell.freshness import Freshness
from domain.payments.events import Flag, PaymentKind, PaymentStatus
from domain.pricing.plans import Plan
from domain.pricing.price_book import PUBLISHED_PRICES
from domain.pricing.rate_card import UsageType
from domain.shared.money import Currency
from projections.credits.read_models import (
    DayUsage,
    MonthUsage,
    Positions,
    ProjectionPosition,
    TransactionType,
)

NOW = datetime(2026, 11, 22, 9, 15, tzinfo=UTC)


def months(*used: int, to_same_point: tuple[int, int] = (0, 0)) -> list[MonthUsage]:
    """Return month cards with these credits, the current month first."""
    points = [*to_same_point, *used[2:]]
    return [
        MonthUsage(date(2026, 11 - number, 1), credits, 1, credits, 1, points[number], number == 0)
        for number, credits in enumerate(used)
    ]


@pytest.mark.parametrize(
    ("used", "pattern"),
    [
        ((0, 0, 0, 0), Pattern.EMPTY),
        ((50, 0, 0, 0), Pattern.GAPS),
        ((10, 100, 0, 100), Pattern.GAPS),
        ((10, 105, 100, 95), Pattern.FLAT),
        ((90, 121, 110, 100), Pattern.GROWING),
        ((10, 100, 400, 100), Pattern.SPIKE),
        ((400, 100, 110, 100), Pattern.SPIKE),
        ((10, 100, 180, 120), Pattern.MIXED),
    ],
)
def test_the_cards_have_a_trend(used: tuple[int, int, int, int], pattern: Pattern) -> None:
    assert read_trend(months(*used)).pattern is pattern


def test_a_current_month_that_is_behind_is_no_growth() -> None:
    assert read_trend(months(50, 121, 110, 100, to_same_point=(50, 90))).pattern is not Pattern.GROWING
    assert read_trend(months(95, 121, 110, 100, to_same_point=(95, 90))).pattern is Pattern.GROWING


def test_a_spike_is_detected() -> None:
    assert read_trend(months(10, 100, 400, 100)).month == date(2026, 9, 1)


def test_the_current_month_is_compared_at_the_same_day() -> None:
    assert same_point_change(months(60, 500, 1, 1, to_same_point=(60, 40))) == pytest.approx(0.5)
    assert same_point_change(months(60, 500, 1, 1, to_same_point=(60, 0))) is None


def test_an_outlier_is_far_above_usual_usage() -> None:
    assert outlier_threshold([100] * 9) is None, "too few events are known"
    usual = [80, 90, 100, 110, 120] * 4
    threshold = outlier_threshold(usual)
    assert threshold is not None
    assert max(usual) < threshold <= 200


@pytest.mark.parametrize(
    ("available", "photos", "events", "needed", "suggested"),
    [
        (0, 5_000, [], 5_500, 5_500),
        (5_000, 5_000, [], 5_500, 1_000),  # the smallest purchase
        (5_500, 5_000, [], 5_500, 0),
        (0, None, [3_000, 1_000, 2_001], 2_202, 2_202),
        (0, 1, [], 2, 1_000),  # the reserve is rounded up
        (-700, 5_000, [], 5_500, 6_200),
    ],
)
def test_a_top_up_covers_the_next_event_and_a_tenth(
    available: int, photos: int | None, events: list[int], needed: int, suggested: int
) -> None:
    found = top_up(available, photos, events, 20_000, 1_000)
    assert found is not None
    assert (found.needed, found.suggested) == (needed, suggested)
    assert found.cost_minor == suggested * 2


def test_no_recommendation_without_usage() -> None:
    assert top_up(0, None, [], 20_000, 1_000) is None


@pytest.mark.parametrize(("used", "is_recommended"), [(7_999, False), (8_000, True), (20_000, True)])
def test_pro_is_recommended_near_its_fee(used: int, is_recommended: bool) -> None:
    assert compare_with_pro(used, 20_000, Currency.USD, PUBLISHED_PRICES).is_recommended is is_recommended


@pytest.mark.parametrize("highest", [0, 1, 7, 999, 1_000, 123_456])
def test_bars_fit_the_chart(highest: int) -> None:
    chart = chart_of([DayUsage(date(2026, 11, day), highest * (day % 2), 0) for day in range(1, 31)])
    assert len(chart.bars) == 30
    for bar in chart.bars:
        assert chart.left <= bar.x
        assert bar.x + bar.width <= chart.width
        assert bar.y >= 0
        assert bar.y + bar.height == pytest.approx(chart.baseline)
    assert chart.lines[-1][0] >= highest
    assert chart.bars[-1].label, "the current day is labelled"


def test_numbers_have_the_format_of_the_country() -> None:
    indian, american = formats_of(Currency.INR, "Asia/Kolkata"), formats_of(Currency.USD, "America/New_York")
    assert (indian.number(1_250_000), american.number(1_250_000)) == ("12,50,000", "1,250,000")
    assert (indian.money(12_345_650), american.money(12_345_650)) == ("₹1,23,456.50", "$123,456.50")
    assert (indian.price(1_500_000), american.price(20_000), american.price(12_500)) == (
        "₹1.50",
        "$0.02",
        "$0.0125",
    )
    late = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
    assert (indian.day(late), american.day(late)) == ("23 Nov 2026", "Nov 22, 2026")
    assert (indian.signed(-5), indian.signed(5), indian.signed(0)) == ("−5", "+5", "0")
    assert indian.rate(100_000) == "0.1"


def test_freshness_of_the_projections() -> None:
    def positions(position: int, log_end: int) -> Positions:
        moved_at = datetime(2026, 11, 22, 9, 14, 50, tzinfo=UTC)
        return Positions([ProjectionPosition("balance", position, 1, moved_at)], log_end)

    assert Freshness.of(positions(7, 7), NOW) == Freshness(NOW, 7, 0, 0)
    behind = Freshness.of(positions(5, 7), NOW)
    assert (behind.events_behind, behind.seconds_behind) == (2, 10)
    assert behind.is_late
    assert not Freshness(NOW, 5, 2, 4).is_late, "usage always changes"
    assert not Freshness(NOW, 7, 0, 0).is_late


def test_every_enum_value_has_a_label() -> None:
    assert labels.TRANSACTION_TYPES.keys() == set(TransactionType)
    assert labels.USAGE_TYPES.keys() == set(UsageType)
    assert labels.PLANS.keys() == set(Plan)
    assert labels.PAYMENT_KINDS.keys() == set(PaymentKind)
    assert labels.PAYMENT_STATUSES.keys() == set(PaymentStatus)
    assert labels.FLAGS.keys() == set(Flag)
