"""The credits of a photo, by usage type and time."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from domain.pricing.rate_card import RateCard, RateChange, UsageType, credits_for
from domain.shared.errors import InvalidInput
from tests.unit.credits.builders import NOON, TENTH

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("usage_type", "rate_millionths"),
    [
        (UsageType.PHOTO_PROCESSING, 1_000_000),
        (UsageType.AI_IMAGE_ROTATION, 1_000_000),
        (UsageType.WATERMARK_REPROCESS, 100_000),
        (UsageType.STORE_ORIGINALS, 0),
    ],
)
def test_published_rates(usage_type: UsageType, rate_millionths: int) -> None:
    assert RateCard().rate_millionths(usage_type, ai_search=True, at=NOON) == rate_millionths


@pytest.mark.parametrize(
    ("usage_type", "rate_millionths"),
    [
        pytest.param(UsageType.PHOTO_PROCESSING, 0, id="processing with both searches off is free"),
        pytest.param(UsageType.AI_IMAGE_ROTATION, 1_000_000, id="rotation costs the same"),
        pytest.param(UsageType.WATERMARK_REPROCESS, 100_000, id="watermarks cost the same"),
    ],
)
def test_both_searches_off(usage_type: UsageType, rate_millionths: int) -> None:
    assert RateCard().rate_millionths(usage_type, ai_search=False, at=NOON) == rate_millionths


def test_both_searches_off_stays_free_after_a_rate_change() -> None:
    card = RateCard([RateChange(UsageType.PHOTO_PROCESSING, 2_000_000, NEW_YEAR)])
    assert card.rate_millionths(UsageType.PHOTO_PROCESSING, ai_search=False, at=NEW_YEAR) == 0


def test_a_rate_is_in_force_from_its_moment_on() -> None:
    card = RateCard([RateChange(UsageType.WATERMARK_REPROCESS, 250_000, NEW_YEAR)])

    def rate(at: datetime) -> int:
        return card.rate_millionths(UsageType.WATERMARK_REPROCESS, ai_search=True, at=at)

    assert rate(NEW_YEAR - MOMENT) == 100_000
    assert rate(NEW_YEAR) == 250_000
    assert rate(NEW_YEAR + timedelta(days=3_650)) == 250_000


def test_a_late_message_has_the_rate_of_its_usage_time() -> None:
    card = RateCard([RateChange(UsageType.AI_IMAGE_ROTATION, 2_000_000, NEW_YEAR)])
    new_year_in_kolkata = datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))

    rate = card.rate_millionths(UsageType.AI_IMAGE_ROTATION, ai_search=True, at=new_year_in_kolkata)

    assert rate == 1_000_000, "midnight in Kolkata is half past six in the evening in UTC"


def test_the_order_of_changes_in_the_list_is_ignored() -> None:
    changes = [
        RateChange(UsageType.STORE_ORIGINALS, rate, NEW_YEAR + timedelta(days=day))
        for day, rate in [(20, 30_000), (0, 10_000), (10, 20_000)]
    ]
    for listed in (changes, changes[::-1]):
        card = RateCard(listed)
        rates = [
            card.rate_millionths(UsageType.STORE_ORIGINALS, ai_search=True, at=NEW_YEAR + timedelta(days=day))
            for day in (-1, 0, 9, 10, 19, 20, 21)
        ]
        assert rates == [0, 10_000, 10_000, 20_000, 20_000, 30_000, 30_000]


def test_the_later_of_two_changes_with_one_date_wins() -> None:
    first = RateChange(UsageType.STORE_ORIGINALS, 10_000, NEW_YEAR)
    second = RateChange(UsageType.STORE_ORIGINALS, 20_000, NEW_YEAR)
    card = RateCard([first, second])
    assert card.rate_millionths(UsageType.STORE_ORIGINALS, ai_search=True, at=NEW_YEAR) == 20_000


def test_a_change_without_a_date_replaces_the_published_rate() -> None:
    card = RateCard([RateChange(UsageType.STORE_ORIGINALS, 50_000)])
    long_ago = datetime(1970, 1, 1, tzinfo=UTC)
    assert card.rate_millionths(UsageType.STORE_ORIGINALS, ai_search=False, at=long_ago) == 50_000


def test_a_rate_below_zero_is_refused() -> None:
    with pytest.raises(InvalidInput, match="store_originals is below zero") as refusal:
        RateCard([RateChange(UsageType.STORE_ORIGINALS, -1)])
    assert refusal.value.field == "rate_millionths"


def test_a_date_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs its zone") as refusal:
        RateCard([RateChange(UsageType.STORE_ORIGINALS, 1, datetime(2027, 1, 1))])  # noqa: DTZ001
    assert refusal.value.field == "effective_from"


@pytest.mark.parametrize(
    ("photos", "rate_millionths", "credits_count"),
    [
        pytest.param(0, 1_000_000, 0, id="no photos, no credits"),
        pytest.param(500, 1_000_000, 500, id="one credit a photo"),
        pytest.param(500, 0, 0, id="a free rate"),
        pytest.param(5_000, TENTH, 500, id="5,000 watermarks"),
        pytest.param(1, TENTH, 1, id="a tenth of a credit rounds up"),
        pytest.param(10, TENTH, 1, id="exactly one"),
        pytest.param(11, TENTH, 2, id="a little over one rounds up"),
        pytest.param(1, 1, 1, id="a millionth rounds up"),
        pytest.param(1_000_000, 1, 1, id="a million millionths are one"),
        pytest.param(3, 333_333, 1, id="a third of a credit, three times"),
        pytest.param(3, 333_334, 2, id="a little over a third, three times"),
    ],
)
def test_a_fraction_of_a_credit_rounds_up(photos: int, rate_millionths: int, credits_count: int) -> None:
    assert credits_for(photos, rate_millionths) == credits_count
