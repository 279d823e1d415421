"""What a form says: its fields as values, what is wrong with them, and what makes it count once."""

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
"""The field that holds a form's own id: sent again, by a second click or a reload, it counts once."""

P = ParamSpec("P")
T = TypeVar("T")

_WHOLE: Final = r"(?:\d+|[1-9]\d{0,2}(?:[, ]\d{3})+|[1-9]\d?(?:,\d{2})*,\d{3})"
"""Digits, in one piece or in groups: 100,000 or 1,00,000. A comma anywhere else may stand
for the decimal point: reading over it would make the money a hundred times as much."""
_WHOLE_NUMBER: Final = re.compile(_WHOLE, re.ASCII)
_PRICE: Final = re.compile(rf"{_WHOLE}(?:\.\d{{1,6}})?|\.\d{{1,6}}", re.ASCII)
_AMOUNT: Final = re.compile(rf"{_WHOLE}(?:\.\d{{1,2}})?|\.\d{{1,2}}", re.ASCII)


@dataclass(frozen=True)
class FormResult:
    """What a form led to: a result, or the faults to show with it, and the status that says so."""

    field_errors: Sequence[FieldError] = ()
    status: int = 200


class Form:
    """A form that was sent."""

    def __init__(self, http: Request, fields: Mapping[str, str] | None = None) -> None:
        """Take the fields that were posted, or others that are read as if they were."""
        self._http = http
        self.fields: Mapping[str, str] = http.state.form if fields is None else fields

    @property
    def request(self) -> command_context.CommandContext:
        """Who asks, when, and by which request."""
        return command_context_of(self._http, services_of(self._http))

    def idempotency_key(self, organisation_id: str) -> IdempotencyKey:
        """Return what makes the form count once.

        Raises:
            HttpProblem: it has no id.
        """
        key = self.text(IDEMPOTENCY_FIELD, 64)
        told = {
            name: value for name, value in self.fields.items() if name not in (CSRF_FIELD, IDEMPOTENCY_FIELD)
        }
        digest = blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=32).digest()
        return IdempotencyKey(f"form {self._http.url.path}\n{organisation_id}", key, digest)

    def text(self, name: str, length_max: int, *, required: bool = True) -> str:
        """Return a field's text without spaces around it.

        Raises:
            HttpProblem: it is missing, too long, or has control characters.
        """
        text = self.fields.get(name, "").strip()
        if required and not text:
            raise invalid(name, "this field is required")
        if len(text) > length_max:
            raise invalid(name, f"at most {length_max} characters")
        if not text.isprintable():
            raise invalid(name, "no line breaks or control characters")
        return text

    def whole_number(self, name: str, least: int, most: int | None = None) -> int:
        """Return a field's whole number; separators between groups of digits are read over.

        Without `most`, how much is too much is the ledger's to say, in money.

        Raises:
            HttpProblem: it is none, or outside its bounds.
        """
        text = self.text(name, 24)
        number = int(_ungrouped(text)) if _WHOLE_NUMBER.fullmatch(text) else -1
        if number < least or (most is not None and number > most):
            bounds = f", at least {least:,}" if most is None else f" from {least:,} to {most:,}"
            raise invalid(name, f"a whole number{bounds}")
        return number

    def price_millionths(self, name: str, most: int) -> int:
        """Return an amount of the currency unit, such as 1.50, in millionths.

        Raises:
            HttpProblem: it is none, has more than six decimals, or is too much.
        """
        return self._decimal(name, _PRICE, "six", MILLIONTHS, most)

    def amount_minor(self, name: str) -> int:
        """Return an amount of the currency unit, such as 1,250.50, in minor units; how much is not checked.

        Raises:
            HttpProblem: it is none, or has more than two decimals.
        """
        return self._decimal(name, _AMOUNT, "two", MINOR_UNITS, None)

    def _decimal(self, name: str, form: re.Pattern[str], decimals: str, units: int, most: int | None) -> int:
        text = self.text(name, 24)
        if not form.fullmatch(text):
            raise invalid(
                name,
                f"an amount such as 1,250.50: a point before at most {decimals} decimals,"
                " commas between thousands",
            )
        amount = int(Decimal(_ungrouped(text)) * units)
        if most is not None and amount > most:
            raise invalid(name, f"at most {most // units:,}")
        return amount

    def choice(self, name: str, choices: type[T]) -> T:
        """Return the member of an enumeration that a field names.

        Raises:
            HttpProblem: it names none.
        """
        make: Callable[[str], T] = choices
        try:
            return make(self.text(name, 64))
        except ValueError:
            raise invalid(name, "choose one of the options") from None


class FormReader:
    """Reads several fields of a form, past what is wrong, so that all of it is told at once."""

    def __init__(self) -> None:
        self._faults: list[FieldError] = []

    def of(self, default: T, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what is read, or something instead where it is wrong."""
        try:
            return read(*args, **kwargs)
        except HttpProblem as problem:
            self._faults += problem.errors
            return default

    def check(self) -> None:
        """Check that nothing was wrong.

        Raises:
            HttpProblem: invalid-request, with all that was.
        """
        if self._faults:
            raise invalid_fields(self._faults)


def _ungrouped(number: str) -> str:
    return number.replace(",", "").replace(" ", "")


def form_result_of(
    error: Exception, *, allowed_status: int | None = None, names: Mapping[str, str] | None = None
) -> FormResult:
    """Return what a form's page shows of an error that its sender can mend, or of one with the status `allowed_status`.

    `names` are those of the form for the ledger's fields, where they differ.

    Raises:
        Exception: the error itself, where they cannot.
    """
    if not isinstance(error, HttpProblem | LedgerError):
        raise error
    problem = problem_of(error)
    status = problem.type.status
    if (status >= 500 or status == 404) and status != allowed_status:
        raise error
    field_errors = [
        FieldError(field=(names or {}).get(fault.field, fault.field), message=fault.message)
        for fault in problem.errors or [FieldError(field="", message=problem.detail)]
    ]
    return FormResult(field_errors, status)
