"""Parsing of typed numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from api.http.problems import HttpProblem
from api.pages.shell.forms import Form


def form(number: str) -> Form:
    http: Any = SimpleNamespace(state=SimpleNamespace(form={"number": number}))
    return Form(http)


@pytest.mark.parametrize("typed", ["100000", "100,000", "1,00,000", "100 000", " 100,000 "])
def test_thousands_may_be_grouped_in_either_way(typed: str) -> None:
    assert form(typed).whole_number("number", 1, 100_000) == 100_000


@pytest.mark.parametrize(
    "typed",
    ["1,5", "1,50", "15,00", "1.000", "1e3", "0,001", "1,0000", ",100", "100,", "1, 000", "٣", "-5", "0"],
)
def test_a_wrong_grouping_is_refused(typed: str) -> None:
    with pytest.raises(HttpProblem) as refused:
        form(typed).whole_number("number", 1, 100_000)
    assert [error.field for error in refused.value.errors] == ["number"]


@pytest.mark.parametrize(
    ("typed", "millionths"),
    [
        ("0.03", 30_000),
        (".5", 500_000),
        ("0", 0),
        ("1,250.5", 1_250_500_000),
        ("1,00,000", 100_000_000_000),
        ("0.000001", 1),
    ],
)
def test_amounts_have_a_decimal_point(typed: str, millionths: int) -> None:
    assert form(typed).price_millionths("number", 10**12) == millionths


@pytest.mark.parametrize(
    "typed",
    [
        "0,03",
        "12,50",
        "0,030",
        "1,2,3",
        "1e-2",
        "1.",
        ".",
        "-1",
        "+1",
        "NaN",
        "1.2345678",
        "1_0",
        "1.5,0",
        "٣",
    ],
)
def test_an_ambiguous_amount_is_refused(typed: str) -> None:
    with pytest.raises(HttpProblem) as refused:
        form(typed).price_millionths("number", 10**12)
    assert [error.field for error in refused.value.errors] == ["number"]


def test_an_amount_has_a_maximum() -> None:
    with pytest.raises(HttpProblem, match="at most 5"):
        form("5.000001").price_millionths("number", 5_000_000)
