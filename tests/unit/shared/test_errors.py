"""Every error has a message, even without arguments."""

import inspect

import pytest

from domain.credits.errors import RefundExceedsCharge
from domain.shared import errors as shared_errors
from domain.shared.errors import InvalidInput, LedgerError, StoreUnavailable, ValidationErrors

ALL = [
    error
    for _, error in inspect.getmembers(shared_errors, inspect.isclass)
    if issubclass(error, LedgerError) and error is not InvalidInput
]


@pytest.mark.parametrize("error", ALL)
def test_an_errors_docstring_is_its_message(error: type[LedgerError]) -> None:
    message = str(error())
    assert message
    assert message == inspect.getdoc(error).splitlines()[0]  # type: ignore[union-attr]
    assert message.endswith(".")


def test_an_error_with_a_message_and_details() -> None:
    error = RefundExceedsCharge("too much", charged=5, refundable=2)
    assert (str(error), error.details) == ("too much", {"charged": 5, "refundable": 2})


def test_an_input_is_refused_by_field() -> None:
    error = InvalidInput("credits", "too many")
    assert (error.field, error.details, str(error)) == ("credits", {"field": "credits"}, "too many")


def test_several_inputs_are_refused_together_in_order() -> None:
    field_errors = ValidationErrors()
    field_errors.check()
    field_errors.add("name", "a name is needed")
    field_errors.add("email", "an email address is needed")
    field_errors.add("name", "at most 120 characters")
    with pytest.raises(InvalidInput) as refusal:
        field_errors.check()
    error = refusal.value
    assert error.field == "name"
    assert error.field_errors == (("name", "a name is needed"), ("email", "an email address is needed"))
    assert str(error) == "name: a name is needed; email: an email address is needed"


def test_one_root_catches_all() -> None:
    with pytest.raises(LedgerError, match="cannot be reached"):
        raise StoreUnavailable
