"""Prices are in millionths of a currency unit; amounts are in minor units, rounded half up."""

import pytest

from domain.credits.limits import CREDITS_MAX
from domain.pricing.price_book import PUBLISHED_PRICES
from domain.shared.money import AMOUNT_MINOR_MAX, PRICE_MILLIONTHS_MAX, Cost, Currency, cost_of

GST = 18


@pytest.mark.parametrize(
    ("credits_count", "currency", "cost"),
    [
        pytest.param(1_000, Currency.USD, Cost(2_000, 0), id="1,000 credits for $20.00, no tax"),
        pytest.param(1_000, Currency.INR, Cost(150_000, 27_000), id="1,000 credits for ₹1,500 + ₹270 GST"),
        pytest.param(1, Currency.INR, Cost(150, 27), id="₹1.50 + ₹0.27"),
        pytest.param(3_333, Currency.INR, Cost(499_950, 89_991), id="GST to the paisa"),
    ],
)
def test_the_published_prices(credits_count: int, currency: Currency, cost: Cost) -> None:
    prices = PUBLISHED_PRICES.of(currency)
    assert cost_of(credits_count, prices.credit_price_millionths, prices.tax_per_cent) == cost


@pytest.mark.parametrize(
    ("price_millionths", "amount_minor"),
    [(0, 0), (4_999, 0), (5_000, 1), (14_999, 1), (15_000, 2), (25_000, 3), (9_999, 1), (10_000, 1)],
)
def test_half_a_cent_rounds_up(price_millionths: int, amount_minor: int) -> None:
    assert cost_of(1, price_millionths, 0) == Cost(amount_minor, 0)


@pytest.mark.parametrize(
    ("amount_minor", "tax_minor"),
    [
        pytest.param(1, 0, id="0.18 down"),
        pytest.param(2, 0, id="0.36 down"),
        pytest.param(3, 1, id="0.54 up"),
        pytest.param(25, 5, id="4.50, a half, up"),
        pytest.param(75, 14, id="13.50, a half, up"),
        pytest.param(100, 18, id="exact"),
    ],
)
def test_gst_is_rounded_from_the_rounded_amount(amount_minor: int, tax_minor: int) -> None:
    assert cost_of(amount_minor, 10_000, GST) == Cost(amount_minor, tax_minor)


def test_tax_is_computed_from_the_rounded_amount() -> None:
    # Exactly 24.5 paise: 25 after rounding, and 18 % of 25 is 4.5, so 5; of 24.5 it would be 4.
    assert cost_of(1, 245_000, GST) == Cost(25, 5)


def test_the_payer_pays_amount_and_tax() -> None:
    assert cost_of(1_000, 1_500_000, GST).total_minor == 177_000


def test_a_fee_and_credits_are_taxed_together() -> None:
    # 3 and 3 paise: 18 % of each is 1 when rounded, and of both together too.
    assert cost_of(3, 10_000, GST, fee_minor=3) == Cost(6, 1)


def test_a_fee_needs_no_credits() -> None:
    assert cost_of(0, 1_500_000, GST, fee_minor=1_000_000) == Cost(1_000_000, 180_000)


def test_the_most_expensive_purchase_fits_a_64_bit_column() -> None:
    assert cost_of(CREDITS_MAX, PRICE_MILLIONTHS_MAX, 100, fee_minor=AMOUNT_MINOR_MAX).total_minor < 2**63
