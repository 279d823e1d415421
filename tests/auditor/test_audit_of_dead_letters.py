"""Tests of the auditor: it finds every missing, changed or invented dead letter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.auditor.conftest import Case, Connection
from tests.auditor.wire import Record

Spoil = Callable[[Record], Record]


def with_header(letter: Record, name: str, content: bytes) -> Record:
    headers = [(each, content if each == name else held) for each, held in letter.headers]
    return letter._replace(headers=tuple(headers))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda each: each._replace(value=(each.value or b"") + b" "), id="another value"),
        pytest.param(lambda each: each._replace(key=b"org-other"), id="another key"),
        pytest.param(lambda each: each._replace(headers=each.headers[1:]), id="a header less"),
        pytest.param(lambda each: with_header(each, "dlq-field", b"other"), id="another field"),
        pytest.param(lambda each: with_header(each, "dlq-reason", b""), id="no reason"),
        pytest.param(lambda each: with_header(each, "dlq-topic", b"other"), id="another topic"),
        pytest.param(lambda each: with_header(each, "dlq-partition", b"7"), id="another partition"),
        pytest.param(lambda each: with_header(each, "dlq-offset", b"999999"), id="another offset"),
    ],
)
def test_it_notices_a_wrong_dead_letter(case: Case, connection: Connection, spoil: Spoil) -> None:
    letters = list(case.ingested.letters)
    number = next(
        number for number, each in enumerate(letters) if "dlq-field" in dict(each.headers) and each.value
    )
    letters[number] = spoil(letters[number])
    assert case.auditor.differences(connection, letters)


def test_it_notices_a_missing_dead_letter(case: Case, connection: Connection) -> None:
    (difference,) = case.auditor.differences(connection, case.ingested.letters[1:])
    assert "is missing: its fault is" in difference


def test_a_dead_letter_may_repeat(case: Case, connection: Connection) -> None:
    assert case.auditor.differences(connection, [*case.ingested.letters, case.ingested.letters[0]]) == []
