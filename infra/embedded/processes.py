"""Processes of embedded servers: their user account, search for live ones, signals.

All functions ask the operating system and never trust a process id in a file. After a crash that id may
belong to another process, or to a zombie.
"""

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Account:
    """The user account of servers. Without ids, the current user."""

    user_id: int | None = None
    group_id: int | None = None

    @classmethod
    def for_servers(cls) -> "Account":
        """Return `nobody` for root, because PostgreSQL refuses root; otherwise the current user."""
        if os.geteuid() != 0:
            return cls()
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def extra_groups(self) -> list[int] | None:
        return None if self.user_id is None else []

    def own(self, path: Path) -> None:
        """Make this account the owner of `path` and everything below it."""
        if self.user_id is None or self.group_id is None:
            return
        os.chown(path, self.user_id, self.group_id)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder, name), self.user_id, self.group_id, follow_symlinks=False)

    def run(
        self, command: Sequence[str | Path], *, timeout_seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this account and wait for its end. Its output includes standard error.

        Raises:
            OSError: the command cannot be executed.
            subprocess.TimeoutExpired: the command takes too long.
        """
        return subprocess.run(
            command,
            check=False,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            user=self.user_id,
            group=self.group_id,
            extra_groups=self.extra_groups,
        )

    def can_run(self, executable: Path) -> bool:
        """Return whether this account can execute a program. Runs it with --version."""
        try:
            return self.run([executable, "--version"], timeout_seconds=30).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False

    def can_enter(self, directory: Path) -> bool:
        """Return whether this account can enter a directory."""
        try:
            return self.run(["/bin/sh", "-c", 'cd "$0"', directory], timeout_seconds=30).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path,
        log: int,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a server in a new session, so that Ctrl-C does not reach it. Its owner stops it."""
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=_environment() | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=self.user_id,
            group=self.group_id,
            extra_groups=self.extra_groups,
        )


def processes_in(directory: Path, name: str) -> list[psutil.Process]:
    """Return the live processes with a name and a working directory."""
    return [process for process in psutil.process_iter() if is_running_in(process, directory, name)]


def is_running_in(process: psutil.Process, directory: Path, name: str) -> bool:
    """Return whether a live process has a name and a working directory. A zombie has no working directory."""
    try:
        return bool(process.name() == name and process.cwd() == str(directory))
    except psutil.Error:
        return False


def process_with(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to processes. psutil skips a process id that now belongs to another process."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def wait_for_end(processes: Iterable[psutil.Process], *, timeout_seconds: float) -> list[psutil.Process]:
    """Wait until the processes have exited. Return those that are still alive after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    alive = [process for process in processes if _is_alive(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        alive = [process for process in alive if _is_alive(process)]
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _environment() -> dict[str, str]:
    # Do not pass PG* and KAFKA* variables of the shell to servers. They are meant for clients.
    return {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"}
