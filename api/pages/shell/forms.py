"""Posted forms: their fields as values, their errors, and their idempotency keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Final, ParamSpec, TypeVar

from starlette.requests import Request

from api.http.dependencies import command_context_of, services_of
from api.http.problem_types import FieldError
from api.http.problems import HttpProblem, invalid, invalid_fields, problem_of
from api.pages.shell.routing import CSRF_FIELD
from domain.shared import command_context
from domain.shared.errors import LedgerError
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import MILLIONTHS, MINOR_UNITS

IDEMPOTENCY_FIELD: str = "once"
"""The field with the idempotency key of a form. A second click or a reload takes effect only once."""

P = ParamSpec("P")
T = TypeVar("T")

_WHOLE: Final = r"(?:\d+|[1-9]\d{0,2}(?:[, ]\d{3})+|[1-9]\d?(?:,\d{2})*,\d{3})"
"""Digits, ungrouped or in groups: 100,000 or 1,00,000. A comma in any other place may be a decimal point.
Ignoring it would multiply an amount by a hundred."""
_WHOLE_NUMBER: Final = re.compile(_WHOLE, re.ASCII)
_PRICE: Final = re.compile(rf"{_WHOLE}(?:\.\d{{1,6}})?|\.\d{{1,6}}", re.ASCII)
_AMOUNT: Final = re.compile(rf"{_WHOLE}(?:\.\d{{1,2}})?|\.\d{{1,2}}", re.ASCII)


@dataclass(frozen=True)
class FormResult:
    """The result of a form: its field errors, and the HTTP status of the page."""

    field_errors: Sequence[FieldError] = ()
    status: int = 200


class Form:
    """A posted form."""

    def __init__(self, http: Request, fields: Mapping[str, str] | None = None) -> None:
        """Use the posted fields, or the given fields instead."""
        self._http = http
        self.fields: Mapping[str, str] = http.state.form if fields is None else fields

    @property
    def request(self) -> command_context.CommandContext:
        """The actor, the time and the id of the request."""
        return command_context_of(self._http, services_of(self._http))

    def idempotency_key(self, organisation_id: str) -> IdempotencyKey:
        """Return the idempotency key of the form.

        Raises:
            HttpProblem: the form has none.
        """
        key = self.text(IDEMPOTENCY_FIELD, 64)
        fields = {
            name: value for name, value in self.fields.items() if name not in (CSRF_FIELD, IDEMPOTENCY_FIELD)
        }
        digest = blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=32).digest()
        return IdempotencyKey(f"form {self._http.url.path}\n{organisation_id}", key, digest)

    def text(self, name: str, length_max: int, *, required: bool = True) -> str:
        """Return a field's text without surrounding spaces.

        Raises:
            HttpProblem: it is missing, too long, or has control characters.
        """
        text = self.fields.get(name, "").strip()
        if required and not text:
            raise invalid(name, "this field is required")
        if len(text) > length_max:
            raise invalid(name, f"use at most {length_max} characters")
        if not text.isprintable():
            raise invalid(name, "do not use line breaks or control characters")
        return text

    def whole_number(self, name: str, least: int, most: int | None = None) -> int:
        """Return a field's whole number. It may have separators between groups of digits.

        Without `most`, the domain checks the upper limit, in money.

        Raises:
            HttpProblem: it is not a whole number, or it is out of bounds.
        """
        text = self.text(name, 24)
        number = int(_ungrouped(text)) if _WHOLE_NUMBER.fullmatch(text) else -1
        if number < least or (most is not None and number > most):
            bounds = f", at least {least:,}" if most is None else f" from {least:,} to {most:,}"
            raise invalid(name, f"enter a whole number{bounds}")
        return number

    def price_millionths(self, name: str, most: int) -> int:
        """Return an amount in the currency unit, such as 1.50, as millionths.

        Raises:
            HttpProblem: it is not an amount, has more than six decimals, or is too large.
        """
        return self._decimal(name, _PRICE, "six", MILLIONTHS, most)

    def amount_minor(self, name: str) -> int:
        """Return an amount in the currency unit, such as 1,250.50, as minor units. Limits are not checked.

        Raises:
            HttpProblem: it is not an amount, or has more than two decimals.
        """
        return self._decimal(name, _AMOUNT, "two", MINOR_UNITS, None)

    def _decimal(self, name: str, form: re.Pattern[str], decimals: str, units: int, most: int | None) -> int:
        text = self.text(name, 24)
        if not form.fullmatch(text):
            raise invalid(
                name,
                f"enter an amount such as 1,250.50, with at most {decimals} decimals after the point"
                " and commas between thousands",
            )
        amount = int(Decimal(_ungrouped(text)) * units)
        if most is not None and amount > most:
            raise invalid(name, f"enter at most {most // units:,}")
        return amount

    def choice(self, name: str, choices: type[T]) -> T:
        """Return the member of an enumeration that a field selects.

        Raises:
            HttpProblem: it selects none.
        """
        make: Callable[[str], T] = choices
        try:
            return make(self.text(name, 64))
        except ValueError:
            raise invalid(name, "choose one of the options") from None


class FormReader:
    """Reads several fields of a form and collects their errors, so that one problem reports all of them."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def read(self, default: T, read_field: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the value that `read_field` returns, or `default` if the field is invalid."""
        try:
            return read_field(*args, **kwargs)
        except HttpProblem as problem:
            self._errors += problem.errors
            return default

    def check(self) -> None:
        """Check that all fields were valid.

        Raises:
            HttpProblem: invalid-request, with all errors.
        """
        if self._errors:
            raise invalid_fields(self._errors)


def _ungrouped(number: str) -> str:
    return number.replace(",", "").replace(" ", "")


def form_result_of(
    error: Exception, *, allowed_status: int | None = None, names: Mapping[str, str] | None = None
) -> FormResult:
    """Return the form result of an error that the sender can correct, or whose status is `allowed_status`.

    `names` maps the domain's field names to the form's field names, where they differ.

    Raises:
        Exception: the error itself, if the sender cannot correct it.
    """
    if not isinstance(error, HttpProblem | LedgerError):
        raise error
    problem = problem_of(error)
    status = problem.type.status
    if (status >= 500 or status == 404) and status != allowed_status:
        raise error
    field_errors = [
        FieldError(field=(names or {}).get(field_error.field, field_error.field), message=field_error.message)
        for field_error in problem.errors or [FieldError(field="", message=problem.detail)]
    ]
    return FormResult(field_errors, status)
