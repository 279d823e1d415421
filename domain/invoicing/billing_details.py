"""Billing details: the buyer on an invoice. They are personal data, so no event contains them.

They are checked once, before they are stored. So everything on file can be printed, and suffices for an
invoice.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

import msgspec

from domain.invoicing.countries import COUNTRIES, GST_STATES, INDIA, gst_state_code
from domain.invoicing.tax_identifiers import TAX_ID_MAX_LENGTH, check_tax_id
from domain.shared.errors import InvalidInput, ValidationErrors

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
"""The characters that the typeface of invoices has."""
_EMAIL: Final = re.compile(r"[^\s@<>(),;:\"]+@[^\s@<>(),;:\"]+\.[^\s@<>(),;:\"]+")
_PHONE: Final = re.compile(r"\+?[\d ().-]{5,23}", re.ASCII)
_PIN_CODE: Final = re.compile(r"[1-9]\d{5}", re.ASCII)


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address. `country` is an ISO 3166 code of two letters; `state` may be empty outside India."""

    country: str
    state: str
    city: str
    postal_code: str
    lines: tuple[str, ...]


class BillingDetails(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, address and contact of a company or a person. `shipping` is None if it is the address."""

    name: str
    email: str
    address: Address
    phone: str | None = None
    tax_id: str | None = None
    shipping: Address | None = None

    @property
    def gst_state(self) -> str | None:
        """The GST code of the buyer's state: the place of supply. None outside India."""
        return gst_state_code(self.address.state) if self.address.country == INDIA else None


def billing_details_digest(details: BillingDetails, salt: bytes) -> str:
    """Return the digest of billing details for an event. Without the salt it reveals nothing."""
    return blake2b(msgspec.json.encode(details), key=salt, digest_size=32).hexdigest()


def validated(details: BillingDetails) -> BillingDetails:
    """Return billing details as they are stored: without extra spaces, states and numbers in one form.

    Raises:
        InvalidInput: some fields are invalid. `field_errors` names all of them, such as
        `address.postal_code`,
            or `address.lines.1` for the second line.
    """
    field_errors = ValidationErrors()
    name = _text("a name", details.name, "name", NAME_MAX_LENGTH, field_errors, needed="is needed")
    email = _text(
        "an email address", details.email, "email", EMAIL_MAX_LENGTH, field_errors, needed="is needed"
    )
    if not _EMAIL.fullmatch(email):
        field_errors.add("email", f"{email!r} is no email address, such as accounts@example.com")
    phone = _text("a phone number", details.phone or "", "phone", PHONE_MAX_LENGTH, field_errors)
    if phone and not _PHONE.fullmatch(phone):
        field_errors.add("phone", f"{phone!r} is no phone number, such as +91 80 4718 0000")
    address = _address(details.address, "address", field_errors)
    tax_id = _tax_id(details.tax_id.strip(), address, field_errors) if details.tax_id else None
    shipping = None if details.shipping is None else _address(details.shipping, "shipping", field_errors)
    field_errors.check()
    return BillingDetails(name, email, address, phone or None, tax_id or None, shipping)


def _address(address: Address, where: str, field_errors: ValidationErrors) -> Address:
    country = address.country.strip().upper()
    if country not in COUNTRIES:
        field_errors.add(f"{where}.country", f"{address.country!r} is no ISO 3166 code of two letters")
    lines = _lines(address.lines, f"{where}.lines", field_errors)
    city = _text("a city", address.city, f"{where}.city", PLACE_MAX_LENGTH, field_errors, needed="is needed")
    state, postal_code = f"{where}.state", f"{where}.postal_code"
    if country == INDIA:
        code = _pin_code(address.postal_code, postal_code, field_errors)
        return Address(country, _indian_state(address.state, state, field_errors), city, code, lines)
    code = _text("a postal code", address.postal_code, postal_code, POSTAL_CODE_MAX_LENGTH, field_errors)
    return Address(
        country, _text("a state", address.state, state, PLACE_MAX_LENGTH, field_errors), city, code, lines
    )


def _lines(lines: tuple[str, ...], field: str, field_errors: ValidationErrors) -> tuple[str, ...]:
    if not lines or not lines[0].strip():
        field_errors.add(field, "street and house are needed")
    if len(lines) > LINES_MAX:
        field_errors.add(field, f"an address has 1 to {LINES_MAX} lines")
    fields = (field, *(f"{field}.{number}" for number in range(1, len(lines))))
    return tuple(
        _text("a line", line, its, PLACE_MAX_LENGTH, field_errors, needed="is empty")
        for its, line in zip(fields, lines, strict=False)
    )


def _pin_code(text: str, field: str, field_errors: ValidationErrors) -> str:
    needed = "is needed in India: six digits, such as 560001"
    code = _text("a PIN code", text, field, POSTAL_CODE_MAX_LENGTH, field_errors, needed=needed).replace(
        " ", ""
    )
    if not _PIN_CODE.fullmatch(code):
        field_errors.add(field, f"{code!r} is no PIN code of India: it has six digits, such as 560001")
    return code


def _indian_state(text: str, field: str, field_errors: ValidationErrors) -> str:
    state = _text("a state", text, field, PLACE_MAX_LENGTH, field_errors, needed="is needed in India")
    code = gst_state_code(state)
    if code is None:
        field_errors.add(field, f"{state!r} is no state of India, nor its GST code")
        return state
    return GST_STATES[code]


def _tax_id(tax_id: str, address: Address, field_errors: ValidationErrors) -> str:
    """Return a tax identifier. It must be valid in the address's country, and a GSTIN in its state."""
    try:
        written = check_tax_id(address.country, tax_id) if tax_id else ""
    except InvalidInput as wrong:
        field_errors.add(wrong.field, str(wrong))
        return tax_id
    here = gst_state_code(address.state) if address.country == INDIA else None
    if written and here is not None and written[:2] != here:
        field_errors.add(
            "tax_id",
            f"the GSTIN is of {GST_STATES[written[:2]]} ({written[:2]}), the address of {address.state}"
            f" ({here}): give the address that the GSTIN is registered at",
        )
    return _text("a tax identifier", written, "tax_id", TAX_ID_MAX_LENGTH, field_errors)


def _text(
    what: str,
    text: str,
    field: str,
    max_length: int,
    field_errors: ValidationErrors,
    *,
    needed: str | None = None,
) -> str:
    """Return a text with single spaces. Add an error if it cannot be printed, or is `needed` and empty."""
    tidy = " ".join(text.split())
    if needed is not None and not tidy:
        field_errors.add(field, f"{what} {needed}")
    if len(tidy) > max_length:
        field_errors.add(field, f"{what} has at most {max_length} characters")
    if wrong := PRINTABLE.sub("", tidy):
        field_errors.add(
            field,
            f"{what} cannot have {wrong[0]!r}: invoices are printed in Latin, Greek or Cyrillic letters",
        )
    return tidy
