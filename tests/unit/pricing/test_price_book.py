"""The price book: the prices in force at a moment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from domain.pricing.price_book import CurrencyChange, Edition, PriceBook
from domain.shared.errors import InvalidInput, PriceVersionNotFound
from domain.shared.money import Currency
from tests.unit.credits.builders import NOON

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
APRIL = datetime(2027, 4, 1, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


def edition(version: str = "2027", effective_from: datetime = NEW_YEAR, **changes: Any) -> Edition:
    return Edition(version, effective_from, **changes)


def inr(**changes: int) -> dict[Currency, CurrencyChange]:
    return {Currency.INR: CurrencyChange(**changes)}


def test_the_published_prices() -> None:
    prices = PriceBook().at(NOON)
    dollars, rupees = prices.of(Currency.USD), prices.of(Currency.INR)
    assert prices.minimum_credits == 1_000
    assert (dollars.credit_price_millionths, rupees.credit_price_millionths) == (20_000, 1_500_000)
    assert (dollars.pro_fee_minor, rupees.pro_fee_minor) == (20_000, 1_000_000)
    assert (dollars.pro_credits, rupees.pro_credits) == (0, 0)
    assert (dollars.tax_per_cent, rupees.tax_per_cent) == (0, 18)


def test_an_edition_is_in_force_from_its_moment_on() -> None:
    book = PriceBook([edition(currencies=inr(credit_price_millionths=1_750_000), minimum_credits=500)])
    before, after = book.at(NEW_YEAR - MOMENT), book.at(NEW_YEAR)
    assert (before.version, before.minimum_credits) == ("published-1", 1_000)
    assert before.of(Currency.INR).credit_price_millionths == 1_500_000
    assert (after.version, after.minimum_credits) == ("2027", 500)
    assert after.of(Currency.INR).credit_price_millionths == 1_750_000


def test_an_edition_keeps_what_it_does_not_change() -> None:
    book = PriceBook(
        [
            edition("april", APRIL, currencies=inr(tax_per_cent=12)),  # listed first, in force last
            edition("new-year", NEW_YEAR, currencies=inr(pro_fee_minor=1_200_000), minimum_credits=2_000),
        ]
    )
    april = book.at(APRIL)
    rupees = april.of(Currency.INR)
    assert (april.version, april.minimum_credits) == ("april", 2_000)
    assert (rupees.pro_fee_minor, rupees.tax_per_cent, rupees.credit_price_millionths) == (
        1_200_000,
        12,
        1_500_000,
    )
    assert april.of(Currency.USD) == PriceBook().at(NOON).of(Currency.USD)


def test_an_edition_is_found_by_its_version() -> None:
    book = PriceBook([edition("2027", currencies=inr(tax_per_cent=12))])
    assert book.edition("2027").of(Currency.INR).tax_per_cent == 12
    assert book.edition("published-1").of(Currency.INR).tax_per_cent == 18
    with pytest.raises(PriceVersionNotFound, match="never taken out"):
        book.edition("2028")


def test_an_edition_written_as_json() -> None:
    written = (
        b'{"version": "2027", "effective_from": "2027-01-01T00:00:00+05:30", "currencies": {"USD":'
        b' {"credit_price_millionths": 25000, "pro_credits": 100}}}'
    )
    book = PriceBook([msgspec.json.decode(written, type=Edition)])
    midnight_in_india = datetime(2026, 12, 31, 18, 30, tzinfo=UTC)
    assert book.at(midnight_in_india - MOMENT).of(Currency.USD).credit_price_millionths == 20_000
    dollars = book.at(midnight_in_india).of(Currency.USD)
    assert (dollars.credit_price_millionths, dollars.pro_credits) == (25_000, 100)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": ""}, "version"),
        ({"version": "x" * 41}, "version"),
        ({"version": "line\nbreak"}, "version"),
        ({"version": "published-1"}, "version"),
        ({"version": "first"}, "version"),
        ({"effective_from": datetime(2027, 1, 1)}, "effective_from"),  # noqa: DTZ001
        ({"effective_from": APRIL}, "effective_from"),
        ({"minimum_credits": 0}, "minimum_credits"),
        ({"currencies": inr(credit_price_millionths=0)}, "currencies.INR.credit_price_millionths"),
        ({"currencies": inr(credit_price_millionths=10**10 + 1)}, "currencies.INR.credit_price_millionths"),
        ({"currencies": inr(pro_fee_minor=-1)}, "currencies.INR.pro_fee_minor"),
        ({"currencies": inr(pro_credits=-1)}, "currencies.INR.pro_credits"),
        ({"currencies": inr(tax_per_cent=101)}, "currencies.INR.tax_per_cent"),
    ],
)
def test_a_wrong_edition_is_refused_and_its_field_named(changes: dict[str, Any], field: str) -> None:
    wrong = msgspec.structs.replace(edition(), **changes)
    with pytest.raises(InvalidInput) as refusal:
        PriceBook([edition("first", APRIL), wrong])
    assert refusal.value.field == f"editions[1].{field}"
