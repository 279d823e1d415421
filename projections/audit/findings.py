"""Findings of an audit: one record per inconsistency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import msgspec

FINDINGS_MAX: Final = 100
"""The maximum per check or per table; further findings are only counted."""


class Difference(msgspec.Struct, frozen=True):
    """A value as it was found, and the value computed from the log."""

    found: Any
    log: Any


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """An inconsistency. `stream` is the organisation's; None means that the finding is about all of them.

    For a table row, `row` holds its key columns and `columns` the values that differ. Both are None when
    `detail` is sufficient. The text form is one line of JSON.
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
    """Return at most `FINDINGS_MAX` findings per check, then one finding with the number of the others."""
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
