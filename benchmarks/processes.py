"""Starts and stops workers: processes next to the measuring one (see `benchmarks.workers`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Timer
from typing import Any, Final

import msgspec

STOP_WITHIN_S: Final = 30.0
Worker = subprocess.Popen[str]


def start_worker(name: str, task: Mapping[str, Any]) -> Worker:
    """Start a worker and return when it is ready."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.workers", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(msgspec.json.encode(task).decode() + "\n")
    worker.stdin.flush()
    if not worker.stdout.readline():
        raise RuntimeError(f"worker {name} ended with {worker.wait()} before it was at work")
    return worker


def finish_worker(worker: Worker, timeout_s: float) -> dict[str, Any]:
    """Wait until a worker is done, and return its report."""
    assert worker.stdout is not None
    too_late = Timer(timeout_s, worker.kill)
    too_late.start()
    try:
        reported = worker.stdout.readline()
        ended_with = worker.wait()
    finally:
        too_late.cancel()
    if ended_with != 0:
        raise RuntimeError(f"a worker ended with {ended_with}")
    report: dict[str, Any] = msgspec.json.decode(reported)
    return report


def stop_worker(worker: Worker) -> dict[str, Any]:
    """Make a worker stop, wait for it, and return its report."""
    worker.terminate()
    return finish_worker(worker, STOP_WITHIN_S)


@contextmanager
def ending_children(*workers: Worker) -> Iterator[None]:
    """Close the pipes of workers. After a failure in the block, kill those that still run."""
    try:
        yield
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
