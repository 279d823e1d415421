"""What an audit reports: one record for everything that does not add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import msgspec

FINDINGS_MAX: Final = 100
"""Of one kind, or in one table; the rest is counted."""


class Difference(msgspec.Struct, frozen=True):
    """A value as it was found, and as the log makes it."""

    found: Any
    log: Any


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that does not add up. `stream` is the organisation's, None where it is about all.

    Of a table's row, `row` are its key columns and `columns` the values that differ; neither is given
    where the detail says it all. As text it is one line of JSON.
    """

    check: str
    stream: UUID | None
    detail: str
    organisation_id: str | None = None
    table: str | None = None
    row: dict[str, Any] | None = None
    columns: dict[str, Difference] | None = None

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()


def limit_per_check(findings: Iterable[Finding]) -> list[Finding]:
    """Return at most `FINDINGS_MAX` of each check, then how many more each has found."""
    kept: list[Finding] = []
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.check] += 1
        if counts[finding.check] <= FINDINGS_MAX:
            kept.append(finding)
    for check, count in counts.items():
        if count > FINDINGS_MAX:
            kept.append(Finding(check, None, f"and {count - FINDINGS_MAX} more"))
    return kept
