"""Processes of embedded servers: whom they run as, which of them are alive, how they end.

Everything asks the operating system and nothing trusts a pid in a file: after a crash that pid may
belong to a stranger, or to a zombie that nobody reaps.
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
    """Whom servers run as; no ids means: as ourselves."""

    user_id: int | None = None
    group_id: int | None = None

    @classmethod
    def for_servers(cls) -> "Account":
        """`nobody` when we are root, which PostgreSQL refuses to run as; otherwise ourselves."""
        if os.geteuid() != 0:
            return cls()
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def extra_groups(self) -> list[int] | None:
        return None if self.user_id is None else []

    def own(self, path: Path) -> None:
        """Make this account the owner of `path` and of everything below it."""
        if self.user_id is None or self.group_id is None:
            return
        os.chown(path, self.user_id, self.group_id)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder, name), self.user_id, self.group_id, follow_symlinks=False)

    def run(
        self, command: Sequence[str | Path], *, timeout_seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as this account, standard error joined to the output.

        Raises OSError when the command cannot be executed, subprocess.TimeoutExpired past the time-out.
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
        """Whether this account can reach and execute the program (asked for its version)."""
        try:
            return self.run([executable, "--version"], timeout_seconds=30).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False

    def can_enter(self, directory: Path) -> bool:
        """Whether every folder on the way to `directory` lets this account pass."""
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
        """Start a server that Ctrl-C in our terminal does not reach: its owner ends it, in order."""
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
    """Live processes called `name` whose working directory is `directory`."""
    return [process for process in psutil.process_iter() if works_in(process, directory, name)]


def works_in(process: psutil.Process, directory: Path, name: str) -> bool:
    """Whether a process is alive, called `name` and at home in `directory`; a zombie has no home."""
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
    """Signal processes; psutil refuses when a pid has passed on to another process since we looked."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def wait_for_end(processes: Iterable[psutil.Process], *, timeout_seconds: float) -> list[psutil.Process]:
    """Wait until the processes have ended; returns those still alive after the time-out."""
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
    # PG* and KAFKA* variables of our own shell are meant for clients and must not bend a server.
    return {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"}
