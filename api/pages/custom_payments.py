"""A custom payment as forms ask for it: in the wizard, and where staff ask somebody for one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from api.fields import NAME_LENGTH_MAX
from api.pages.forms import Form, Reading
from domain.money import MINOR_UNITS

FIELD_NAMES: Final[Mapping[str, str]] = MappingProxyType({"amount_minor": "amount"})
"""What the forms call the ledger's fields."""


def read_custom(form: Form) -> tuple[int, str]:
    """Return the amount of a form in minor units, and the remark.

    Raises:
        HttpProblem: one of them is none, or both.
    """
    reading = Reading()
    amount_minor = reading.of(0, form.amount_minor, "amount")
    remark = reading.of("", form.text, "remark", NAME_LENGTH_MAX)
    reading.check()
    return amount_minor, remark


def typed(amount_minor: int) -> str:
    """Return an amount as somebody would type it: 1250.50."""
    whole, rest = divmod(amount_minor, MINOR_UNITS)
    return f"{whole}.{rest:02}"
