"""`python -m benchmarks`: measure the ledger on this machine. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.cases import all_cases
from benchmarks.environment import BenchmarkEnvironment
from benchmarks.machine import machine_facts
from benchmarks.results import report
from benchmarks.runner import Case, run_cases
from benchmarks.sizes import FULL, QUICK
from infra.service.process import tune_for_throughput
from infra.service.telemetry import log_to_stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return 0, or 1 if a case failed."""
    options = _parser().parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    rounds = options.repetitions or sizes.rounds
    cases = _chosen(all_cases(sizes), options.only)
    log_to_stderr("WARNING")
    tune_for_throughput()
    with BenchmarkEnvironment(sizes) as bench_env:
        circumstances = {
            "quick": options.quick,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "rounds": rounds,
            "machine": machine_facts(bench_env),
        }
        outcome = run_cases(bench_env, cases, rounds)
    text, written = report(cases, outcome, circumstances)
    options.out.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
    print(text)
    return 1 if outcome.failures else 0


def _chosen(cases: Sequence[Case], only: Sequence[str] | None) -> list[Case]:
    chosen = [case for case in cases if not only or any(case.name.startswith(name) for name in only)]
    if not chosen:
        raise SystemExit(f"no such case; there are: {', '.join(case.name for case in cases)}")
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: the same figures, only rougher")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose names begin so")
    parser.add_argument("--repetitions", type=int, metavar="N", help="rounds to take medians of")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results.json"), help="where figures go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
