"""The price book: prices by time. It is a sequence of editions, each in force from a moment on.

A quote and a payment store the version of the edition they were made with, so later editions do not
change them. An organisation gets its price per credit from here when it opens; from then on it has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import msgspec

from domain.shared.errors import InvalidInput, PriceVersionNotFound
from domain.shared.money import AMOUNT_MINOR_MAX, PRICE_MILLIONTHS_MAX, Currency

VERSION_MAX_LENGTH: Final = 40
_TAX_PER_CENT_MAX: Final = 100
_MINIMUM_CREDITS_MAX: Final = 1_000_000_000
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


class CurrencyPrices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices in one currency before tax: a credit in millionths of its unit, a year of Pro in minor units.

    A year of Pro includes `pro_credits`. `tax_per_cent` is added to every payment.
    """

    credit_price_millionths: int
    pro_fee_minor: int
    pro_credits: int
    tax_per_cent: int


class Prices(msgspec.Struct, frozen=True):
    """One edition of the price book. No purchase of credits is smaller than `minimum_credits`."""

    version: str
    effective_from: datetime
    minimum_credits: int
    currencies: Mapping[Currency, CurrencyPrices]

    def of(self, currency: Currency) -> CurrencyPrices:
        """Return the prices in a currency."""
        return self.currencies[currency]


PUBLISHED_PRICES: Final = Prices(
    "published-1",
    _BEGINNING,
    1_000,
    MappingProxyType(
        {
            Currency.USD: CurrencyPrices(20_000, 20_000, 0, 0),  # $0.02 a credit, $200 a year of Pro, no tax
            Currency.INR: CurrencyPrices(1_500_000, 1_000_000, 0, 18),  # ₹1.50, ₹10,000, 18 % GST
        }
    ),
)
"""The first edition, in force until the next one."""


class CurrencyChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes of an edition in a currency. None means unchanged."""

    credit_price_millionths: int | None = None
    pro_fee_minor: int | None = None
    pro_credits: int | None = None
    tax_per_cent: int | None = None


class Edition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An edition: changes from a moment on, under a unique version."""

    version: str
    effective_from: datetime
    minimum_credits: int | None = None
    currencies: dict[Currency, CurrencyChange] = {}


class PriceBook:
    """All editions. A later edition never changes earlier payments or quotes.

    Raises:
        InvalidInput: an edition is invalid; `field` is the place, such as
            `editions[0].currencies.INR.tax_per_cent`.
    """

    def __init__(self, editions: Iterable[Edition] = ()) -> None:
        listed = [*editions]
        for number, edition in enumerate(listed):
            _check(edition, f"editions[{number}]", listed[:number])
        history = [PUBLISHED_PRICES]
        for edition in sorted(listed, key=lambda each: each.effective_from):
            history.append(_changed(history[-1], edition))
        self._newest_first = history[::-1]

    def at(self, moment: datetime) -> Prices:
        """Return the prices in force at a moment."""
        return next(prices for prices in self._newest_first if prices.effective_from <= moment)

    def edition(self, version: str) -> Prices:
        """Return the prices of a version.

        Raises:
            PriceVersionNotFound: the book has no edition of this version.
        """
        for prices in self._newest_first:
            if prices.version == version:
                return prices
        raise PriceVersionNotFound(f"the price book has no edition {version!r}: editions are never taken out")


def _changed(prices: Prices, edition: Edition) -> Prices:
    """Return prices with the changes of an edition."""
    currencies = dict(prices.currencies)
    for currency, change in edition.currencies.items():
        changes = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
        currencies[currency] = msgspec.structs.replace(currencies[currency], **changes)
    return Prices(
        edition.version,
        edition.effective_from,
        prices.minimum_credits if edition.minimum_credits is None else edition.minimum_credits,
        MappingProxyType(currencies),
    )


def _check(edition: Edition, where: str, earlier: list[Edition]) -> None:
    version = edition.version
    if not 1 <= len(version) <= VERSION_MAX_LENGTH or not version.isprintable():
        raise InvalidInput(
            f"{where}.version", f"a version has 1 to {VERSION_MAX_LENGTH} printable characters"
        )
    if version in {PUBLISHED_PRICES.version, *(each.version for each in earlier)}:
        raise InvalidInput(f"{where}.version", f"another edition has the version {version!r}")
    if edition.effective_from.tzinfo is None:
        raise InvalidInput(
            f"{where}.effective_from", "an edition's date needs its zone, such as 2027-01-01T00:00:00Z"
        )
    if any(edition.effective_from == each.effective_from for each in earlier):
        raise InvalidInput(f"{where}.effective_from", "another edition begins at the same moment")
    _check_range(edition.minimum_credits, f"{where}.minimum_credits", 1, _MINIMUM_CREDITS_MAX)
    for currency, change in edition.currencies.items():
        in_currency = f"{where}.currencies.{currency}"
        _check_range(
            change.credit_price_millionths, f"{in_currency}.credit_price_millionths", 1, PRICE_MILLIONTHS_MAX
        )
        _check_range(change.pro_fee_minor, f"{in_currency}.pro_fee_minor", 1, AMOUNT_MINOR_MAX)
        _check_range(change.pro_credits, f"{in_currency}.pro_credits", 0, _MINIMUM_CREDITS_MAX)
        _check_range(change.tax_per_cent, f"{in_currency}.tax_per_cent", 0, _TAX_PER_CENT_MAX)


def _check_range(value: int | None, field: str, minimum: int, maximum: int) -> None:
    if value is not None and not minimum <= value <= maximum:
        raise InvalidInput(field, f"{value} is outside {minimum} to {maximum}")
