"""Prices are millionths of a currency unit, amounts whole minor units, rounded half up."""

import pytest

from domain.money import DEFAULT_PRICE_MILLIONTHS, Cost, Currency, cost_of
from domain.organisation import CREDITS_MAX, PRICE_MILLIONTHS_MAX


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
    assert cost_of(credits_count, DEFAULT_PRICE_MILLIONTHS[currency], currency) == cost


@pytest.mark.parametrize(
    ("price_millionths", "amount_minor"),
    [(0, 0), (4_999, 0), (5_000, 1), (14_999, 1), (15_000, 2), (25_000, 3), (9_999, 1), (10_000, 1)],
)
def test_half_a_cent_rounds_up(price_millionths: int, amount_minor: int) -> None:
    assert cost_of(1, price_millionths, Currency.USD) == Cost(amount_minor, 0)


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
    assert cost_of(amount_minor, 10_000, Currency.INR) == Cost(amount_minor, tax_minor)


def test_tax_is_of_the_amount_that_is_charged_not_of_the_exact_one() -> None:
    # 24.5 paise exactly: 25 after rounding, and 18 % of 25 is 4.5, so 5; of 24.5 it would be 4.
    assert cost_of(1, 245_000, Currency.INR) == Cost(25, 5)


def test_the_payer_pays_amount_and_tax() -> None:
    assert cost_of(1_000, 1_500_000, Currency.INR).total_minor == 177_000


@pytest.mark.parametrize("currency", Currency)
def test_the_dearest_purchase_fits_a_64_bit_column(currency: Currency) -> None:
    assert cost_of(CREDITS_MAX, PRICE_MILLIONTHS_MAX, currency).total_minor < 2**63
