"""Runs cases in turns, A B C A B C, so that a temporary slowdown of the machine affects all of them."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.environment import BenchmarkEnvironment, Sample


class Case(NamedTuple):
    """A benchmark case, measured in every round or in the first few only.

    `set_up` runs once, before all rounds. Cases with the same `set_up` share one call.
    """

    name: str
    title: str
    measure: Callable[[BenchmarkEnvironment], Sample]
    set_up: Callable[[BenchmarkEnvironment], None] | None = None
    rounds: int | None = None


class Outcome(NamedTuple):
    """All measurements of each case, and the errors of failed cases."""

    samples: dict[str, list[Sample]]
    failures: dict[str, str]


def run_cases(bench_env: BenchmarkEnvironment, cases: Sequence[Case], rounds: int) -> Outcome:
    """Set cases up and measure them in turns. A failed case is not measured again."""
    outcome = Outcome({case.name: [] for case in cases}, {})
    _set_up(bench_env, cases, outcome)
    for number in range(rounds):
        for case in cases:
            if case.name in outcome.failures or (case.rounds is not None and number >= case.rounds):
                continue
            _print_progress(f"round {number + 1} of {rounds}: {case.name}")
            try:
                sample = case.measure(bench_env)
            except Exception as error:
                _fail(outcome, case, error)
            else:
                outcome.samples[case.name].append(sample)
    return outcome


def _set_up(bench_env: BenchmarkEnvironment, cases: Sequence[Case], outcome: Outcome) -> None:
    done: dict[Callable[[BenchmarkEnvironment], None], Exception | None] = {}
    for case in cases:
        if case.set_up is None:
            continue
        if case.set_up not in done:
            _print_progress(f"preparing {case.name}")
            try:
                case.set_up(bench_env)
                done[case.set_up] = None
            except Exception as error:
                done[case.set_up] = error
        error_met = done[case.set_up]
        if error_met is not None:
            _fail(outcome, case, error_met)


def _fail(outcome: Outcome, case: Case, error: Exception) -> None:
    traceback.print_exception(error)
    outcome.failures[case.name] = f"{type(error).__name__}: {error}"


def _print_progress(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
