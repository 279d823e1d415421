"""The fields of a custom payment: for the purchase wizard and for the staff form."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from api.http.fields import NAME_LENGTH_MAX
from api.pages.shell.forms import Form, FormReader
from domain.shared.money import MINOR_UNITS

FIELD_NAMES: Final[Mapping[str, str]] = MappingProxyType({"amount_minor": "amount"})
"""The form's field names for the domain's field names."""


def read_custom_payment(form: Form) -> tuple[int, str]:
    """Return the amount of a form, in minor units, and the remark.

    Raises:
        HttpProblem: one or both fields are invalid.
    """
    reader = FormReader()
    amount_minor = reader.read(0, form.amount_minor, "amount")
    remark = reader.read("", form.text, "remark", NAME_LENGTH_MAX)
    reader.check()
    return amount_minor, remark


def amount_text(amount_minor: int) -> str:
    """Return an amount in the format of a form field: 1250.50."""
    whole, rest = divmod(amount_minor, MINOR_UNITS)
    return f"{whole}.{rest:02}"
