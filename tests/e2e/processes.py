"""Starts, kills and stops the service's processes as an operator does, and keeps their logs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
KILLED = -signal.SIGKILL

_OURS = (
    *("DATABASE_URL", "MIGRATION_DATABASE_URL", "METRICS_PORT", "RATE_CARD", "KAFKA_", "API_"),
    *("USAGE_", "EVENTS_TOPIC", "BALANCES_TOPIC"),
    *("OIDC_", "EMBEDDED_", "PUBLIC_URL", "RAZORPAY_", "PAYGLOCAL_", "WEBHOOK_"),
)
_LOG_TAIL = 4_000


class Worker:
    """One process of `python -m infra.cli COMMAND`, restarted under the same environment."""

    def __init__(self, name: str, command: str, environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.command = command
        self._command = [sys.executable, "-m", "infra.cli", *command.split()]
        self.environment = service_environment(environment)
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, unless it runs."""
        if not self.is_running:
            with self._log.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    self._command,
                    cwd=REPOSITORY,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    def kill(self) -> None:
        """Kill it. Raises AssertionError if it has ended by itself before."""
        process = self._process
        assert process is not None
        process.kill()
        code = process.wait(timeout=10)
        assert code == KILLED, f"{self.name} ended by itself with {code}:\n{self.log}"

    def stop(self, *, within_s: float) -> int:
        """Stop it (SIGTERM) and return its exit code. Raises subprocess.TimeoutExpired."""
        process = self._process
        assert process is not None
        process.terminate()
        return process.wait(timeout=within_s)

    def end(self) -> None:
        """End it, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    def has_logged(self, words: str) -> bool:
        """Whether it logged a text since its last start."""
        return words.encode() in self._log.read_bytes()[self._log_start :]

    @property
    def log(self) -> str:
        """The end of its log, over all starts."""
        if not self._log.exists():
            return "(no log)"
        return self._log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")


def service_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return our environment without variables of the service, except the given ones."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return inherited | dict(environment)


def run_command(command: str, environment: Mapping[str, str], *, within_s: float = 60.0) -> str:
    """Run a command of the service and return its output. It must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", *command.split()],
        cwd=REPOSITORY,
        env=service_environment(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert done.returncode == 0, f"{command} failed with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
