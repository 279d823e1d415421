"""Localised formats of numbers, money, days and times."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_skeleton, format_time, get_timezone_name
from babel.numbers import format_currency, format_decimal

from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS
from domain.shared.money import MILLIONTHS, Currency, cost_of

MINUS: Final = "\N{MINUS SIGN}"
_MINOR_UNITS: Final = 100
_LOCALES: Final = {Currency.INR: Locale("en", "IN"), Currency.USD: Locale("en", "US")}
_PRICE_PATTERNS: Final = {Currency.INR: "¤#,##,##0.00####", Currency.USD: "¤#,##0.00####"}


class Formats:
    """The formats of an organisation, by its currency (₹1,25,000.00 or $125,000.00) and its time zone."""

    def __init__(self, currency: Currency, time_zone: str) -> None:
        self.currency = currency
        self.locale = _LOCALES[currency]
        self.zone = ZoneInfo(time_zone)

    @property
    def language(self) -> str:
        """The language tag of the formats, for the `lang` attribute of a page."""
        return f"{self.locale.language}-{self.locale.territory}"

    def number(self, number: int) -> str:
        """Return 1,25,000 or 125,000, with a minus sign if it is negative."""
        text = format_decimal(abs(number), locale=self.locale)
        return MINUS + text if number < 0 else text

    def signed(self, number: int) -> str:
        """Return the number with its sign, also if it is positive."""
        return f"+{self.number(number)}" if number > 0 else self.number(number)

    def price(self, price_millionths: int) -> str:
        """Return the price of one credit, with all its decimals."""
        amount = Decimal(price_millionths) / MILLIONTHS
        pattern = _PRICE_PATTERNS[self.currency]
        return format_currency(
            amount, self.currency.value, pattern, locale=self.locale, currency_digits=False
        )

    def cost(self, credits_count: int, price_millionths: int) -> str:
        """Return the cost of credits at a price, excluding tax."""
        return self.money(cost_of(credits_count, price_millionths, 0).amount_minor)

    def rate(self, rate_millionths: int) -> str:
        """Return a rate in credits per photo, with all its decimals."""
        return format_decimal(Decimal(rate_millionths) / WHOLE_CREDIT_MILLIONTHS, "0.######", self.locale)

    def money(self, amount_minor: int, currency: str | None = None) -> str:
        """Return an amount in minor units as money, with the symbol of its currency."""
        amount = Decimal(abs(amount_minor)) / _MINOR_UNITS
        text = format_currency(amount, currency or self.currency.value, locale=self.locale)
        return MINUS + text if amount_minor < 0 else text

    def day(self, day: date | datetime) -> str:
        """Return a day, or the day of a time: 3 Nov 2026 or Nov 3, 2026."""
        return format_date(self._local(day), "medium", locale=self.locale)

    def month(self, month: date) -> str:
        """Return November 2026."""
        return format_skeleton("yMMMM", month, locale=self.locale)

    def weekday(self, day: date) -> str:
        """Return Tue, 3 Nov."""
        return format_skeleton("MMMEd", day, locale=self.locale)

    def short_day(self, day: date) -> str:
        """Return 3 Nov or Nov 3."""
        return format_skeleton("MMMd", day, locale=self.locale)

    def time(self, moment: datetime, *, with_seconds: bool = False) -> str:
        """Return the time of day."""
        return format_time(
            moment, "medium" if with_seconds else "short", tzinfo=self.zone, locale=self.locale
        )

    def moment(self, moment: datetime) -> str:
        """Return day and time of day."""
        return f"{self.day(moment)}, {self.time(moment)}"

    @property
    def zone_name(self) -> str:
        """The name of the time zone, such as India Time."""
        return get_timezone_name(self.zone, locale=self.locale)

    def _local(self, day: date | datetime) -> date:
        return day.astimezone(self.zone).date() if isinstance(day, datetime) else day


def in_utc(text: str) -> str:
    """Return an ISO 8601 time in a readable form, in UTC. Any other text is returned unchanged."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return text
    return f"{format_date(moment, 'medium', locale='en_GB')}, {moment:%H:%M:%S} UTC"


@lru_cache(maxsize=1_024)
def formats_of(currency: Currency, time_zone: str) -> Formats:
    """Return the formats of a currency and a time zone."""
    return Formats(currency, time_zone)
