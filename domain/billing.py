"""Billing details: who an invoice is made out to. Personal: they stay out of every event.

Checked once, when they are given; what is on file can be printed, and is enough for an invoice.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

import msgspec

from domain.errors import InvalidInput
from domain.places import COUNTRIES, GST_STATES, INDIA, gst_state_code
from domain.tax_identifiers import check_tax_id

NAME_MAX_LENGTH: Final = 120
EMAIL_MAX_LENGTH: Final = 254
PHONE_MAX_LENGTH: Final = 24
PLACE_MAX_LENGTH: Final = 80
POSTAL_CODE_MAX_LENGTH: Final = 16
LINES_MAX: Final = 3

# Latin, Greek and Cyrillic letters with their marks, digits, punctuation and currency signs.
PRINTABLE: Final = re.compile(
    "[\u0020-\u007e\u00a0-\u00ac\u00ae-\u024f\u0370-\u0377\u037a-\u037f\u0384-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03e1\u0400-\u052f\u1e00-\u1eff\u2010-\u2015\u2018-\u201e\u2020-\u2022\u2026\u2030\u20a0-\u20bf]+"
)
"""What the invoice's typeface has."""
_EMAIL: Final = re.compile(r"[^\s@<>(),;:\"]+@[^\s@<>(),;:\"]+\.[^\s@<>(),;:\"]+")
_PHONE: Final = re.compile(r"\+?[\d ().-]{5,23}", re.ASCII)
_PIN_CODE: Final = re.compile(r"[1-9]\d{5}", re.ASCII)


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where somebody is. `country` is an ISO 3166 code of two letters; `state` may be empty outside India."""

    country: str
    state: str
    city: str
    postal_code: str
    lines: tuple[str, ...]


class BillingDetails(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A company's or a person's name and address; `shipping` None: the same as the address."""

    name: str
    email: str
    address: Address
    phone: str | None = None
    tax_id: str | None = None
    shipping: Address | None = None

    @property
    def gst_state(self) -> str | None:
        """The GST code of the buyer's state, which is the place of supply; None outside India."""
        return gst_state_code(self.address.state) if self.address.country == INDIA else None


def digest_of_details(details: BillingDetails, salt: bytes) -> str:
    """Return what an event may say of billing details: without the salt it tells nothing of them."""
    return blake2b(msgspec.json.encode(details), key=salt, digest_size=32).hexdigest()


def checked(details: BillingDetails) -> BillingDetails:
    """Return billing details as they are kept: without needless spaces, states and numbers in one form.

    Raises:
        InvalidInput: something cannot be right; `field` says what, as in `address.postal_code`.
    """
    address = _checked_address(details.address, "address")
    email = _text(details.email, "email", EMAIL_MAX_LENGTH)
    if not _EMAIL.fullmatch(email):
        raise InvalidInput("email", f"{email!r} is no email address")
    phone = _text(details.phone, "phone", PHONE_MAX_LENGTH) if details.phone else None
    if phone is not None and not _PHONE.fullmatch(phone):
        raise InvalidInput("phone", f"{phone!r} is no phone number")
    tax_id = check_tax_id(address.country, details.tax_id.strip()) if details.tax_id else None
    result = BillingDetails(
        _text(details.name, "name", NAME_MAX_LENGTH),
        email,
        address,
        phone,
        _text(tax_id, "tax_id", NAME_MAX_LENGTH) if tax_id else None,
        None if details.shipping is None else _checked_address(details.shipping, "shipping"),
    )
    _check_gstin_is_of_state(result)
    return result


def _checked_address(address: Address, field: str) -> Address:
    country = address.country.strip().upper()
    if country not in COUNTRIES:
        raise InvalidInput(f"{field}.country", f"{address.country!r} is no ISO 3166 code of two letters")
    state = _text(address.state, f"{field}.state", PLACE_MAX_LENGTH, least=0)
    postal_code = _text(address.postal_code, f"{field}.postal_code", POSTAL_CODE_MAX_LENGTH, least=0)
    if country == INDIA:
        code = gst_state_code(state)
        if code is None:
            raise InvalidInput(f"{field}.state", f"{state!r} is no state of India, nor its GST code")
        state = GST_STATES[code]
        postal_code = postal_code.replace(" ", "")
        if not _PIN_CODE.fullmatch(postal_code):
            raise InvalidInput(f"{field}.postal_code", "a PIN code of India has six digits")
    if not 1 <= len(address.lines) <= LINES_MAX:
        raise InvalidInput(f"{field}.lines", f"an address has 1 to {LINES_MAX} lines")
    lines = tuple(_text(line, f"{field}.lines", PLACE_MAX_LENGTH) for line in address.lines)
    return Address(country, state, _text(address.city, f"{field}.city", PLACE_MAX_LENGTH), postal_code, lines)


def _check_gstin_is_of_state(details: BillingDetails) -> None:
    if details.gst_state is None or details.tax_id is None:
        return
    registered = details.tax_id[:2]
    if registered != details.gst_state:
        raise InvalidInput(
            "tax_id",
            f"the GSTIN is of {GST_STATES[registered]} ({registered}), the address of {details.address.state}"
            f" ({details.gst_state}): give the address that the GSTIN is registered at",
        )


def _text(text: str, field: str, most: int, *, least: int = 1) -> str:
    """Return a text with single spaces, if an invoice can show it."""
    tidy = " ".join(text.split())
    if not least <= len(tidy) <= most:
        raise InvalidInput(field, f"{least} to {most} characters are needed")
    if wrong := PRINTABLE.sub("", tidy):
        raise InvalidInput(
            field, f"{wrong[0]!r} cannot be printed: invoices are in Latin, Greek or Cyrillic letters"
        )
    return tidy
