"""Runs the parts of the service as supervised child processes and prints their output."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from threading import Lock, Thread
from typing import IO, Final

from domain.shared.backoff import Backoff
from infra.service.process import SUPERVISED

_COLOURS: Final = ("36", "35", "33", "32", "34", "31")
_RESTART_BACKOFF_MIN_S: Final = 0.2
_RESTART_BACKOFF_MAX_S: Final = 10.0
_STABLE_AFTER_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 30.0


class PrefixedPrinter:
    """Prints lines with the name of their part, in colour if the terminal supports colours."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._colours: dict[str, str] = {}
        self._lock = Lock()
        self._coloured = stream.isatty() and "NO_COLOR" not in os.environ

    def print_line(self, part: str, line: str) -> None:
        """Print one line with the name of its part."""
        with self._lock:
            colour = self._colours.setdefault(part, _COLOURS[len(self._colours) % len(_COLOURS)])
            name = f"{part:>9}"
            if self._coloured:
                name = f"\033[{colour}m{name}\033[0m"
            print(f"{name} | {line}", file=self._stream, flush=True)


class ChildProcess:
    """A child process that is restarted when it exits, until `stop` is called.

    Its standard input is a pipe from this process. When this process ends for any reason, the pipe is closed
    and the child stops.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], printer: PrefixedPrinter
    ) -> None:
        self.name = name
        self.restarts = 0
        self._command = [sys.executable, "-m", "infra.cli", *arguments]
        self._environment = {**os.environ, **environment, SUPERVISED: "1", "PYTHONUNBUFFERED": "1"}
        self._printer = printer
        self._process: subprocess.Popen[str] | None = None
        self._started_at = 0.0
        self._restart_at = 0.0
        self._backoff = Backoff(_RESTART_BACKOFF_MIN_S, _RESTART_BACKOFF_MAX_S)

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self._environment,
            # Ctrl-C must reach only this process, which stops the parts in order.
            start_new_session=True,
        )
        self._started_at = time.monotonic()
        Thread(target=self._relay_output, args=(self._process.stdout,), daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Process id, or None if the process is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def supervise(self) -> None:
        """Restart the process if it exited. The delay doubles while it keeps exiting."""
        now = time.monotonic()
        if self.pid is not None:
            if now - self._started_at > _STABLE_AFTER_S:
                self._backoff.reset()
            return
        if not self._restart_at:
            code = self._process.returncode if self._process else None
            self._printer.print_line(
                self.name, f"exited with code {code}; restarts in {self._backoff.next_s:.1f} s"
            )
            self._restart_at = now + self._backoff.advance()
        elif now >= self._restart_at:
            self._restart_at = 0.0
            self.restarts += 1
            self.start()

    def wait(self, timeout_s: float) -> int | None:
        """Wait up to `timeout_s` seconds. Return the exit code, or None if the process still runs."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, within_s: float = _STOP_TIMEOUT_S) -> None:
        """Terminate the process. Kill it if it still runs after `within_s` seconds."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        if self.wait(within_s) is None:
            self._printer.print_line(self.name, "does not stop; killed")
            process.kill()
            process.wait()

    def _relay_output(self, output: IO[str]) -> None:
        for line in output:
            self._printer.print_line(self.name, line.rstrip())
