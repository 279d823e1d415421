"""What a form says: its fields as values, what is wrong with them, and what makes it count once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import TypeVar

from starlette.requests import Request

from api.dependencies import asked_by, services_of
from api.pages.routing import FORM_TOKEN
from api.problem_types import FieldError
from api.problems import HttpProblem, explain, invalid
from domain import facts
from domain.errors import LedgerError
from domain.money import MILLIONTHS
from domain.ports import Once

ONCE: str = "once"
"""The field that holds a form's own id: sent again, by a second click or a reload, it counts once."""

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a form led to: a result, or the faults to show with it, and the status that says so."""

    faults: Sequence[FieldError] = ()
    status: int = 200


class Form:
    """A form that was sent."""

    def __init__(self, http: Request) -> None:
        self._http = http
        self.fields: Mapping[str, str] = http.state.form

    @property
    def request(self) -> facts.Request:
        """Who asks, when, and by which request."""
        return asked_by(self._http, services_of(self._http))

    def once(self, organisation_id: str) -> Once:
        """Return what makes the form count once.

        Raises:
            HttpProblem: it has no id.
        """
        key = self.text(ONCE, 64)
        told = {name: value for name, value in self.fields.items() if name not in (FORM_TOKEN, ONCE)}
        digest = blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=32).digest()
        return Once(f"form {self._http.url.path}\n{organisation_id}", key, digest)

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

    def whole(self, name: str, least: int, most: int) -> int:
        """Return a field's whole number; separators of thousands are read over.

        Raises:
            HttpProblem: it is none, or outside its bounds.
        """
        text = self.text(name, 24).replace(",", "").replace(" ", "")
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise invalid(name, f"a whole number from {least:,} to {most:,}")
        return int(text)

    def price_millionths(self, name: str, most: int) -> int:
        """Return an amount of the currency unit, such as 1.50, in millionths.

        Raises:
            HttpProblem: it is none, has more than six decimals, or is too much.
        """
        text = self.text(name, 24).replace(",", "")
        wrong = invalid(name, "an amount such as 1.50, with at most six decimals")
        try:
            millionths = Decimal(text) * MILLIONTHS
        except InvalidOperation:
            raise wrong from None
        if not millionths.is_finite() or millionths != int(millionths) or not 0 <= millionths <= most:
            raise wrong
        return int(millionths)

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


def faults_of(error: Exception, *, also: int | None = None) -> Outcome:
    """Return what a form's page shows of an error that its sender can mend, or of one with the status `also`.

    Raises:
        Exception: the error itself, where they cannot.
    """
    if not isinstance(error, HttpProblem | LedgerError):
        raise error
    problem = explain(error)
    status = problem.type.status
    if (status >= 500 or status == 404) and status != also:
        raise error
    return Outcome(problem.errors or [FieldError(field="", message=problem.detail)], status)
