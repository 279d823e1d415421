"""Tax identifiers: checks of format and checksum, by country, without a network request.

python-stdnum knows the formats and checksums. GSTINs are checked here with its algorithms, because its list
of states lacks Ladakh.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from stdnum import luhn
from stdnum.au import abn
from stdnum.ca import bn
from stdnum.eu import vat as eu_vat
from stdnum.exceptions import ValidationError
from stdnum.gb import vat as gb_vat
from stdnum.in_ import pan
from stdnum.nz import ird
from stdnum.us import ein

from domain.invoicing.countries import EUROPEAN_UNION, GST_STATES, INDIA
from domain.shared.errors import InvalidInput

TAX_ID_MAX_LENGTH: Final = 40
_GSTIN: Final = re.compile(r"\d{2}[A-Z]{5}\d{4}[A-Z][1-9A-Z]Z[0-9A-Z]", re.ASCII)
_GSTIN_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_GREECE: Final = "GR"


def check_tax_id(country: str, tax_id: str) -> str:
    """Return a tax identifier as invoices print it: without separators, if its format is known.

    Raises:
        InvalidInput: it is not valid in the country, or too long.
    """
    if len(tax_id) > TAX_ID_MAX_LENGTH:
        raise InvalidInput("tax_id", f"a tax identifier has at most {TAX_ID_MAX_LENGTH} characters")
    known = _KNOWN.get(country)
    if known is None:
        return tax_id
    name, validate = known
    try:
        return validate(tax_id)
    except ValidationError as error:
        raise InvalidInput("tax_id", f"{tax_id!r} is no {name}: {_why(error)}") from None


def check_gstin(gstin: str) -> str:
    """Return a GSTIN in capitals, without separators.

    Fifteen characters: the state's code, the holder's PAN, the count of registrations, Z, and a check
    character over the rest (Luhn, modulo 36).

    Raises:
        ValidationError: it is not a GSTIN.
    """
    written = re.sub(r"[\s-]", "", gstin).upper()
    if not _GSTIN.fullmatch(written) or written[:2] not in GST_STATES:
        raise ValidationError
    pan.validate(written[2:12])
    luhn.validate(written, _GSTIN_DIGITS)
    return written


def _eu_vat(country: str) -> Callable[[str], str]:
    prefix = "EL" if country == _GREECE else country

    def validate(number: str) -> str:
        written = re.sub(r"[\s.-]", "", number).upper()
        return eu_vat.validate(written if written.startswith(prefix) else prefix + written)

    return validate


_KNOWN: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = MappingProxyType(
    {
        INDIA: ("GSTIN", check_gstin),
        "AU": ("Australian Business Number", abn.validate),
        "CA": ("Canadian Business Number", bn.validate),
        "GB": ("British VAT number", gb_vat.validate),
        "NZ": ("New Zealand IRD number", ird.validate),
        "US": ("Employer Identification Number", ein.validate),
        **{country: ("VAT number of this country", _eu_vat(country)) for country in EUROPEAN_UNION},
    }
)


def _why(error: ValidationError) -> str:
    return {
        "InvalidLength": "it has not the right length",
        "InvalidChecksum": "a character of it is mistyped",
    }.get(type(error).__name__, "it has not the right form")
