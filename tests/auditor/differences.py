"""Tables compared row by row and field by field."""

from __future__ import annotations

from typing import Any

from tests.auditor.statement_rows import Row, Table


def compare_tables(name: str, expected: Table, found: Table) -> list[str]:
    """Return every difference between the expected and the actual rows of a table."""
    differences = [f"{name}{list(key)} is missing" for key in expected.keys() - found.keys()]
    differences += [f"{name}{list(key)} is not to be there" for key in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        differences += compare_rows(f"{name}{list(key)}", expected[key], found[key])
    return sorted(differences)


def compare_rows(name: str, expected: Row, found: Row) -> list[str]:
    """Return every field of a row that differs from the expected one."""
    return [
        f"{name}.{field} is {_shown(found.get(field))}, expected {_shown(value)}"
        for field, value in expected.items()
        if found.get(field) != value
    ]


def _shown(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)
