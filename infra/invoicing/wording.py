"""English texts of invoices: amounts in words and names of countries."""

from __future__ import annotations

from typing import Final

from babel import Locale
from num2words import num2words

from domain.shared.money import Currency

_UNITS: Final = {
    Currency.INR: ("en_IN", "Rupees", "paise"),
    Currency.USD: ("en", "US dollars", "cents"),
}
_MINOR_PER_UNIT: Final = 100
_ENGLISH: Final = Locale("en")


class EnglishInvoiceText:
    """Amounts in Indian or American English: lakhs and crores, or thousands and millions."""

    def amount_in_words(self, amount_minor: int, currency: Currency) -> str:
        """Return an amount in words, such as `Rupees one lakh and fifty paise only`."""
        language, unit, minor_unit = _UNITS[currency]
        whole, minor = divmod(amount_minor, _MINOR_PER_UNIT)
        words = f"{unit} {num2words(whole, lang=language)}"
        if minor:
            words += f" and {num2words(minor, lang=language)} {minor_unit}"
        return f"{words} only"

    def country_name(self, code: str) -> str:
        """Return the English name of a country, or the code if it has no name."""
        return str(_ENGLISH.territories.get(code, code))
