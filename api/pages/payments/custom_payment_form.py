"""A custom payment as forms ask for it: in the wizard, and where staff ask somebody for one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from api.http.fields import NAME_LENGTH_MAX
from api.pages.shell.forms import Form, FormReader
from domain.shared.money import MINOR_UNITS

FIELD_NAMES: Final[Mapping[str, str]] = MappingProxyType({"amount_minor": "amount"})
"""What the forms call the ledger's fields."""


def read_custom_payment(form: Form) -> tuple[int, str]:
    """Return the amount of a form in minor units, and the remark.

    Raises:
        HttpProblem: one of them is none, or both.
    """
    reader = FormReader()
    amount_minor = reader.of(0, form.amount_minor, "amount")
    remark = reader.of("", form.text, "remark", NAME_LENGTH_MAX)
    reader.check()
    return amount_minor, remark


def amount_text(amount_minor: int) -> str:
    """Return an amount as somebody would type it: 1250.50."""
    whole, rest = divmod(amount_minor, MINOR_UNITS)
    return f"{whole}.{rest:02}"
