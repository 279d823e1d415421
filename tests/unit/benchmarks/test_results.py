"""Medians, headline figures, and failed cases."""

from typing import cast

import pytest

from benchmarks.cases import all_cases
from benchmarks.checks import WrongResult, must_equal
from benchmarks.environment import BenchmarkEnvironment, Sample
from benchmarks.results import figure_of, headlines, report
from benchmarks.runner import Case, Outcome, run_cases
from benchmarks.sizes import FULL, QUICK

NO_ENVIRONMENT = cast("BenchmarkEnvironment", None)


def sample(rate: float, **figures: float) -> Sample:
    return Sample(1_000, 1_000 / rate, 0.002, 0.003, figures)


def test_a_figure_is_the_median_of_its_rounds() -> None:
    figure = figure_of([sample(100.0, load=3), sample(300.0, load=1), sample(250.0, load=2)])

    assert (figure.events_per_s, figure.lowest, figure.highest) == pytest.approx((250, 100, 300))
    assert (figure.python_us_per_event, figure.postgres_us_per_event) == pytest.approx((2, 3))
    assert figure.figures == {"load": 2}


def test_headlines_compare_medians() -> None:
    figures = {
        "ingest_2000": figure_of([sample(150.0)]),
        "limit_2000": figure_of([sample(200.0)]),
        "load": figure_of([sample(1.0, long_history_load_us=900, short_history_load_us=300)]),
    }
    found = headlines(figures)

    assert found["ingest_vs_copy_limit"] == pytest.approx(0.75)
    assert found["aggregate_load_1m_vs_10"] == pytest.approx(3)
    assert found["replay_events_per_s"] is None


def test_every_headline_has_its_cases() -> None:
    figures = dict.fromkeys(
        ["long_history_load_us", "short_history_load_us", "consumer_rss_mb", "worst_many_vs_few"], 1
    )
    for sizes in (FULL, QUICK):
        names = [case.name for case in all_cases(sizes)]
        full_run = {name: figure_of([sample(1.0, **figures)]) for name in names}

        assert len(set(names)) == len(names)
        assert None not in headlines(full_run).values()


def test_cases_take_turns_and_share_one_set_up() -> None:
    happened = []

    def set_up(_: BenchmarkEnvironment) -> None:
        happened.append("set up")

    def measure(name: str) -> Case:
        def run(_: BenchmarkEnvironment) -> Sample:
            happened.append(name)
            return sample(1.0)

        return Case(name, name, run, set_up, rounds=1 if name == "c" else None)

    outcome = run_cases(NO_ENVIRONMENT, [measure("a"), measure("b"), measure("c")], 2)

    assert happened == ["set up", "a", "b", "c", "a", "b"]
    assert {name: len(samples) for name, samples in outcome.samples.items()} == {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize("fails_in", ["set_up", "measure"])
def test_a_wrong_result_fails_its_case_alone(fails_in: str, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(_: BenchmarkEnvironment) -> Sample:
        must_equal("charges", 1, 2)
        raise AssertionError

    broken = (
        Case("broken", "broken", wrong)
        if fails_in == "measure"
        else Case("broken", "broken", lambda _: sample(1.0), lambda bench_env: (wrong(bench_env), None)[1])
    )
    good = Case("good", "good", lambda _: sample(1.0))
    outcome = run_cases(NO_ENVIRONMENT, [broken, good], 3)

    assert len(outcome.samples["good"]) == 3
    assert outcome.samples["broken"] == []
    assert WrongResult.__name__ in outcome.failures["broken"]
    assert "Traceback" in capsys.readouterr().err


def test_the_report_names_failures_and_keeps_every_key() -> None:
    case = Case("replay", "replay", lambda _: sample(1.0))
    text, written = report([case], Outcome({"replay": []}, {"replay": "it broke"}), {"quick": True})

    assert "FAILED replay: it broke" in text
    assert written["replay_events_per_s"] is None
    assert written["failures"] == {"replay": "it broke"}
    assert written["quick"] is True
