"""Facts that the figures of a run depend on: the machine, its load, and the versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import psutil

from benchmarks.environment import BenchmarkEnvironment


def machine_facts(bench_env: BenchmarkEnvironment) -> dict[str, Any]:
    """Return these facts; `commit_us` is the median time of a small durable write."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "commit_us": round(bench_env.commit_us()),
        "python": platform.python_version(),
        "postgres": bench_env.postgres_version(),
        "packages": {name: version(name) for name in ("eventsourcing", "kafka-python", "msgspec", "psycopg")},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            named = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor()
