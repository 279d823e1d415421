"""Every error says what happened, even where the one who raises it adds nothing."""

import inspect

import pytest

from domain import errors
from domain.errors import Faults, InvalidInput, LedgerError, RefundExceedsCharge, StoreUnavailable

ALL = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, LedgerError) and error is not InvalidInput
]


@pytest.mark.parametrize("error", ALL)
def test_an_errors_docstring_is_its_message(error: type[LedgerError]) -> None:
    message = str(error())
    assert message
    assert message == inspect.getdoc(error).splitlines()[0]  # type: ignore[union-attr]
    assert message.endswith(".")


def test_a_message_and_details_of_ones_own() -> None:
    error = RefundExceedsCharge("too much", charged=5, refundable=2)
    assert (str(error), error.details) == ("too much", {"charged": 5, "refundable": 2})


def test_an_input_is_refused_by_field() -> None:
    error = InvalidInput("credits", "too many")
    assert (error.field, error.details, str(error)) == ("credits", {"field": "credits"}, "too many")


def test_several_inputs_are_refused_together_in_the_order_they_were_found() -> None:
    faults = Faults()
    faults.check()
    faults.add("name", "a name is needed")
    faults.add("email", "an email address is needed")
    faults.add("name", "at most 120 characters")
    with pytest.raises(InvalidInput) as refusal:
        faults.check()
    error = refusal.value
    assert error.field == "name"
    assert error.faults == (("name", "a name is needed"), ("email", "an email address is needed"))
    assert str(error) == "name: a name is needed; email: an email address is needed"


def test_one_root_catches_all() -> None:
    with pytest.raises(LedgerError, match="cannot be reached"):
        raise StoreUnavailable
