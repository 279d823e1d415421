"""The runs of a photo event: each is listed once, whatever other runs the organisation has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from projections.credits import detail_queries
from projections.credits.detail_queries import event_details
from tests.histories import START, Account
from tests.integration.projections.conftest import Ledger

ORG = "org-4711"


def runs_of(ledger: Ledger, event_id: int, limit: int) -> list[list[str]]:
    """Return the runs of an event, page by page."""
    pages, cursor = [], None
    while True:
        found = event_details(ledger.connection, ORG, event_id, cursor, limit)
        pages.append([run.reference for run in found.runs])
        cursor = found.next_cursor
        if cursor is None:
            return pages


@pytest.fixture
def overlapping_events(story: Callable[[Account], None]) -> None:
    """Event 1 has every third of twelve runs, and is the second event of two more runs."""
    account = Account(trial_credits=200)
    for number in range(12):
        at = START + timedelta(minutes=number)
        account.charge(1, f"run-{number:02}", at=at, event_id=1 + number % 3)
    for number in (1, 8):
        account.charge(1, f"run-{number:02}", at=START + timedelta(hours=1), event_id=1)
    account.charge(1, "run-03", at=START + timedelta(hours=1), event_id=2)
    story(account)


@pytest.mark.usefixtures("overlapping_events")
def test_runs_of_an_event_are_listed_once_and_newest_first(ledger: Ledger) -> None:
    assert runs_of(ledger, 1, 10) == [["run-09", "run-08", "run-06", "run-03", "run-01", "run-00"]]
    assert runs_of(ledger, 1, 4) == [["run-09", "run-08", "run-06", "run-03"], ["run-01", "run-00"]]
    assert runs_of(ledger, 3, 10) == [["run-11", "run-08", "run-05", "run-02"]]


@pytest.mark.usefixtures("overlapping_events")
@pytest.mark.parametrize("looked_at", [1, 2, 3])
def test_no_run_is_missing_if_a_page_examines_only_some_multi_event_runs(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(detail_queries, "RUNS_SCANNED_MAX", looked_at)

    pages = runs_of(ledger, 1, 10)

    assert [run for page in pages for run in page] == [
        "run-09", "run-08", "run-06", "run-03", "run-01", "run-00",
    ]  # fmt: skip
    assert len(pages) > 1
    assert [run for page in runs_of(ledger, 2, 10) for run in page] == [
        "run-10", "run-07", "run-04", "run-03", "run-01",
    ]  # fmt: skip
