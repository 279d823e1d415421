"""Tasks in one process: they start and end together."""

from __future__ import annotations

from threading import Event

import pytest

from infra.service.process import run_in_threads


def test_all_run_until_stopped() -> None:
    stop, first_runs = Event(), Event()
    ended = []

    def first(stop: Event) -> None:
        first_runs.set()
        stop.wait(5)
        ended.append("first")

    def second(stop: Event) -> None:
        assert first_runs.wait(5)  # at the same time as this one
        stop.set()
        ended.append("second")

    run_in_threads([first, second], stop)
    assert sorted(ended) == ["first", "second"]


def test_a_failed_task_stops_the_others_and_its_error_is_raised() -> None:
    ended = []

    def lasting(stop: Event) -> None:
        assert stop.wait(5)
        ended.append("lasting")

    def failing(_: Event) -> None:
        raise LookupError("what is this?")

    with pytest.raises(LookupError, match="what is this"):
        run_in_threads([lasting, failing], Event())
    assert ended == ["lasting"]
