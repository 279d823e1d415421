"""The form of billing details: its fields, their labels, and the conversion to billing details."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from babel import Locale

from api.pages.shell.forms import Form
from domain.invoicing.billing_details import Address, BillingDetails
from domain.invoicing.countries import COUNTRIES, GST_STATES, INDIA

ADDRESS_LINES_SHOWN: Final = 2
ADDRESS_SECTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"address": "Billing address", "shipping": "Shipping address"}
)
_PARTS: Final = ("country", "lines", "line_2", "city", "postal_code", "state", "gst_state")
LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("name", "email", "phone", "tax_id"), ""),
        **{f"{where}.{part}": title for where, title in ADDRESS_SECTIONS.items() for part in _PARTS},
    }
)
"""Prefix of a field's error in the list of errors. The message names the field, but not which address."""
STATES: Final = tuple(
    (name, f"{name} ({code})") for code, name in sorted(GST_STATES.items(), key=lambda each: each[1])
)
"""The states of India as (value, label), sorted by name."""


def details_of(form: Form) -> BillingDetails:
    """Return the billing details of a form. The domain validates them."""
    shipping = None if form.fields.get("shipping_same") else _address(form.fields, "shipping")
    return BillingDetails(
        form.fields.get("name", ""),
        form.fields.get("email", ""),
        _address(form.fields, "address"),
        form.fields.get("phone", "").strip() or None,
        form.fields.get("tax_id", "").strip() or None,
        shipping,
    )


def form_field_names(fields: Mapping[str, str]) -> Mapping[str, str]:
    """Return the form's field names for the domain's field names, where they differ."""
    lines = {
        f"{where}.lines.{number}": f"{where}.line_{number + 1}"
        for where in ADDRESS_SECTIONS
        for number in range(1, ADDRESS_LINES_SHOWN)
    }
    states = {f"{where}.state": _state_field(fields, where) for where in ADDRESS_SECTIONS}
    return {**lines, **states}


def form_values(details: BillingDetails | None) -> Mapping[str, str]:
    """Return the values of the form's fields for the details on file."""
    if details is None:
        return {"shipping_same": "yes"}
    fields: dict[str, Any] = {
        "name": details.name,
        "email": details.email,
        "phone": details.phone or "",
        "tax_id": details.tax_id or "",
        "shipping_same": "" if details.shipping else "yes",
    }
    for where, address in (("address", details.address), ("shipping", details.shipping)):
        if address is not None:
            fields |= {
                f"{where}.{part}": getattr(address, part) for part in ("country", "city", "postal_code")
            }
            fields[_state_field(fields, where)] = address.state
            fields[f"{where}.lines"] = address.lines[0]
            fields[f"{where}.line_2"] = ", ".join(address.lines[1:])
    return fields


@cache
def countries() -> tuple[tuple[str, str], ...]:
    """Return (code, name) of all countries, sorted by name."""
    names_of = Locale("en").territories
    return tuple(sorted(((code, names_of.get(code, code)) for code in COUNTRIES), key=lambda each: each[1]))


def _state_field(fields: Mapping[str, str], where: str) -> str:
    """Return the name of the state field. In India it is a list of choices."""
    return f"{where}.gst_state" if fields.get(f"{where}.country") == INDIA else f"{where}.state"


def _address(fields: Mapping[str, str], where: str) -> Address:
    def part(name: str) -> str:
        return fields.get(f"{where}.{name}", "")

    first, *others = (
        part("lines"),
        *(part(f"line_{number}") for number in range(2, ADDRESS_LINES_SHOWN + 1)),
    )
    return Address(
        part("country"),
        fields.get(_state_field(fields, where), "") or part("state"),
        part("city"),
        part("postal_code"),
        (first, *(line for line in others if line.strip())),
    )
