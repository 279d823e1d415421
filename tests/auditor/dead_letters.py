"""Compares the dead-letter topic with the refused records: it may repeat one, never miss or invent one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.auditor.verdicts import Place, Refusal
from tests.auditor.wire import Record

_PREFIX = "dlq-"


def compare_letters(refused: Mapping[Place, Refusal], letters: Sequence[Record], topic: str) -> list[str]:
    """Return every difference between the expected and the actual dead letters."""
    differences = []
    seen = set()
    for letter in letters:
        headers = _own_headers(letter)
        place = (_number(headers.get("partition")), _number(headers.get("offset")))
        name = f"dead letter {letter.offset} of {topic} {place}"
        if place not in refused or headers.get("topic") != topic.encode():
            differences.append(f"{name} is not to be there: {headers.get('reason')!r}")
            continue
        seen.add(place)
        differences += [f"{name}: {problem}" for problem in _problems(refused[place], letter, headers)]
    differences += [
        f"dead letter of {place} is missing: its fault is {refused[place].field}"
        for place in sorted(refused.keys() - seen)
    ]
    return differences


def _problems(refusal: Refusal, letter: Record, headers: Mapping[str, bytes]) -> list[str]:
    record = refusal.record
    problems = []
    field = None if refusal.field is None else refusal.field.encode()
    if headers.get("field") != field:
        problems.append(f"blames {headers.get('field')!r}, expected {field!r}: {headers.get('reason')!r}")
    if not headers.get("reason") or not headers.get("time"):
        problems.append("says neither why nor when")
    # The client cannot send a record without key and value: it then sends an empty value.
    value = b"" if record.key is None and record.value is None else record.value
    if (letter.key, letter.value) != (record.key, value):
        problems.append("key or value are not those of the record")
    if letter.headers[: len(record.headers)] != record.headers:
        problems.append("the headers of the record are not kept")
    return problems


def _own_headers(letter: Record) -> dict[str, bytes]:
    return {
        name.removeprefix(_PREFIX): content for name, content in letter.headers if name.startswith(_PREFIX)
    }


def _number(content: bytes | None) -> int:
    return int(content) if content and content.isdigit() else -1
