"""Medians, ratios and targets of a benchmark run, as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from benchmarks.environment import Sample
from benchmarks.runner import Case, Outcome


class Figure(msgspec.Struct, frozen=True):
    """The medians of a case. `lowest` and `highest` are also in events per second, and show the spread."""

    events_per_s: float
    lowest: float
    highest: float
    python_us_per_event: float
    postgres_us_per_event: float
    events: int
    rounds: int
    figures: dict[str, float]


class Target(msgspec.Struct, frozen=True):
    """The target of a headline figure: a minimum if `least`, otherwise a maximum."""

    bound: float
    least: bool = True

    def met_by(self, value: float) -> bool:
        """Return whether a value reaches the target."""
        return value >= self.bound if self.least else value <= self.bound


_RATIOS: Final = {
    "ingest_vs_copy_limit": ("ingest_2000", "limit_2000"),
    "ingest_vs_copy_limit_500": ("ingest_500", "limit_500"),
    "ingest_vs_documented": ("ingest_2000", "library"),
    "end_to_end_vs_copy_limit": ("end_to_end", "limit_2000"),
    "ingest_with_repeats_and_api_vs_ingest": ("ingest_repeats_api", "ingest_2000"),
    "ingest_with_far_repeats_vs_ingest": ("ingest_far_repeats", "ingest_2000"),
    "ingest_5m_vs_10k": ("ingest_large_ledger", "ingest_small_ledger"),
    "holds_vs_by_hand_1": ("holds_1", "holds_by_hand_1"),
    "holds_vs_by_hand_8": ("holds_8", "holds_by_hand_8"),
    "holds_vs_by_hand_64": ("holds_64", "holds_by_hand_64"),
    "holds_one_vs_many": ("holds_one", "holds_8"),
}
_TARGETS: Final = {
    "ingest_vs_copy_limit": Target(0.65),
    "ingest_vs_documented": Target(60),
    "end_to_end_vs_copy_limit": Target(0.2),
    "ingest_with_repeats_and_api_vs_ingest": Target(0.7),
    "ingest_5m_vs_10k": Target(0.85),
    "holds_vs_by_hand_8": Target(1.0),
    "holds_vs_by_hand_64": Target(1.0),
    "holds_one_vs_many": Target(0.9),
    "aggregate_load_1m_vs_10": Target(20, least=False),
    "pages_5m_vs_10k": Target(1.5, least=False),
    "replay_events_per_s": Target(150_000),
    "consumer_rss_mb": Target(400, least=False),
}


def figure_of(samples: Sequence[Sample]) -> Figure:
    """Return the medians of a case's samples."""
    rates = [sample.events / sample.seconds for sample in samples]
    names = samples[0].figures
    return Figure(
        statistics.median(rates),
        min(rates),
        max(rates),
        statistics.median(sample.python_s / sample.events * 1e6 for sample in samples),
        statistics.median(sample.postgres_s / sample.events * 1e6 for sample in samples),
        samples[0].events,
        len(samples),
        {name: statistics.median(sample.figures[name] for sample in samples) for name in names},
    )


def headlines(figures: Mapping[str, Figure]) -> dict[str, float | None]:
    """Return the headline figures; None for those whose cases did not run."""
    found: dict[str, float | None] = {
        name: _ratio(figures.get(of), figures.get(to)) for name, (of, to) in _RATIOS.items()
    }
    loads = figures.get("load")
    reads = figures.get("reads")
    replay = figures.get("replay")
    memory = figures.get("memory")
    found["aggregate_load_1m_vs_10"] = (
        loads.figures["long_history_load_us"] / loads.figures["short_history_load_us"] if loads else None
    )
    found["pages_5m_vs_10k"] = reads.figures["worst_many_vs_few"] if reads else None
    found["replay_events_per_s"] = replay.events_per_s if replay else None
    found["consumer_rss_mb"] = memory.figures["consumer_rss_mb"] if memory else None
    return {name: None if value is None else _rounded(value) for name, value in found.items()}


def report(
    cases: Sequence[Case], outcome: Outcome, circumstances: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the text to print and the JSON to write."""
    figures = {name: figure_of(samples) for name, samples in outcome.samples.items() if samples}
    heads = headlines(figures)
    lines = [*_case_table(cases, figures), "", *_headline_table(heads)]
    lines += [f"FAILED {name}: {why}" for name, why in outcome.failures.items()]
    written = {
        **heads,
        **circumstances,
        "cases": {name: msgspec.to_builtins(figure) for name, figure in figures.items()},
        "failures": outcome.failures,
    }
    return "\n".join(lines), written


def _ratio(of: Figure | None, to: Figure | None) -> float | None:
    return of.events_per_s / to.events_per_s if of and to else None


def _rounded(value: float) -> float:
    return round(value, 3) if value < 100 else round(value)


def _case_table(cases: Sequence[Case], figures: Mapping[str, Figure]) -> list[str]:
    lines = [
        f"{'case':58s} {'events/s':>10s} {'lowest':>10s} {'highest':>10s} {'Python':>8s} {'PostgreSQL':>10s}",
        f"{'':58s} {'':>10s} {'':>10s} {'':>10s} {'us/event':>8s} {'us/event':>10s}",
    ]
    for case in cases:
        figure = figures.get(case.name)
        if figure is not None:
            lines.append(
                f"{case.title:58s} {figure.events_per_s:10,.0f}"
                f" {figure.lowest:10,.0f} {figure.highest:10,.0f}"
                f" {figure.python_us_per_event:8.1f} {figure.postgres_us_per_event:10.1f}"
            )
            lines += [f"    {name} {value:,.1f}" for name, value in figure.figures.items()]
    return lines


def _headline_table(heads: Mapping[str, float | None]) -> list[str]:
    lines = [f"{'headline':58s} {'figure':>10s} {'target':>12s}"]
    for name, value in heads.items():
        target = _TARGETS.get(name)
        shown = "-" if value is None else f"{value:,}"
        bound = f"{'>=' if target.least else '<='} {target.bound:,}" if target else ""
        verdict = "  missed" if target and value is not None and not target.met_by(value) else ""
        lines.append(f"{name:58s} {shown:>10s} {bound:>12s}{verdict}")
    return lines
