"""Life cycle shared by the embedded servers: start, adopt, supervise, stop.

One directory belongs to one server. Any number of processes may call `start` on it: the first launches
the server, the others find it running and use it. Whoever holds `owner.lock` stops the server when it
leaves; the kernel frees that lock when its holder dies, and the next `start` adopts what was left behind.
"""

import atexit
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psutil

from infra.embedded.errors import EmbeddedServerError
from infra.embedded.files import (
    FileLock,
    appended_log,
    exclusive,
    is_free,
    pick_free_port,
    read_number,
    tail,
    write_atomically,
)
from infra.embedded.processes import POLL_SECONDS, Account, process_with


class EmbeddedServer(ABC):
    """A server process in a directory of its own, on 127.0.0.1.

    `port` 0 picks a free port once and keeps it for later starts while it stays free. A running server
    that is adopted keeps the port and the settings it was launched with.
    """

    title: ClassVar[str]
    start_timeout_seconds: ClassVar[float] = 120.0

    def __init__(self, root: Path, *, port: int = 0) -> None:
        self.root = root.resolve()
        self.log_path = self.root / "server.log"
        self._account = Account.for_servers()
        self._asked_port = port
        self._port_file = self.root / "port"
        self._start_lock = self.root / "start.lock"
        self._ownership = FileLock(self.root / "owner.lock")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Launch the server, or adopt the one that runs here, and return its address once it answers.

        Raises EmbeddedServerError, with the end of the server's log, when it does not come up.
        """
        self._make_root()
        with self._exclusive():
            self._install()
            try:
                self._bring_up()
            except BaseException:
                self._abandon_launch()
                raise
            self._claim()
        return self.address

    def ensure_running(self) -> str:
        """Start the server again if it died; cheap while it lives. Raises as `start` does."""
        return self.address if self.is_running() else self.start()

    def stop(self) -> None:
        """Stop the server and wait for its end, unless another living process owns it.

        Raises EmbeddedServerError when a process survives every signal.
        """
        atexit.unregister(self._stop_at_exit)
        if not self.root.exists():
            return
        with self._exclusive():
            if not self._ownership.try_acquire():
                return
            try:
                self._shut_down()
                self._reap()
            finally:
                self._ownership.release()

    def is_running(self) -> bool:
        """Whether the server's main process is alive (not: whether it answers)."""
        return self._find() is not None

    @property
    def pid(self) -> int:
        """Process id of the running server. Raises EmbeddedServerError when it does not run."""
        process = self._find()
        if process is None:
            raise EmbeddedServerError(f"{self.title} in {self.root} is not running")
        return int(process.pid)

    @property
    def port(self) -> int:
        """The port of the last start. Raises EmbeddedServerError when there was none."""
        port = read_number(self._port_file)
        if port is None:
            raise EmbeddedServerError(f"{self.title} in {self.root} was never started")
        return port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    @abstractmethod
    def address(self) -> str:
        """What clients connect to."""

    @abstractmethod
    def _install(self) -> None:
        """Put everything a launch needs in place; does nothing when it is there."""

    @abstractmethod
    def _launch(self, port: int, log: int) -> subprocess.Popen[bytes]:
        """Spawn the server."""

    @abstractmethod
    def _find_adoptable(self) -> psutil.Process | None:
        """The main process of a server in this directory, whoever launched it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server serves a real client now."""

    @abstractmethod
    def _clear_remains(self) -> None:
        """Remove what a crash left behind: stray processes and stale files."""

    @abstractmethod
    def _shut_down(self) -> None:
        """End the server and everything it forked."""

    def _make_root(self) -> None:
        if not self.root.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            # The server's account has to pass through, and must not be able to plant files here.
            self.root.chmod(0o700 if self._account.user_id is None else 0o711)
        if not self._account.can_enter(self.root):
            raise EmbeddedServerError(
                f"{self.title} runs as the account `nobody`, which cannot reach {self.root}: "
                "choose a directory outside of private ones, such as /var/lib/creditledger"
            )

    def _bring_up(self) -> None:
        deadline = time.monotonic() + self.start_timeout_seconds
        if self._port_file.exists() and self._wait_for_answer(deadline):
            return
        self._clear_remains()
        for port in self._candidate_ports():
            write_atomically(self._port_file, str(port))
            with appended_log(self.log_path) as log:
                self._child = self._launch(port, log)
            if self._wait_for_answer(deadline):
                return
            if is_free(port):  # so the port was not what it died of
                break
        raise EmbeddedServerError(f"{self.title} ended before it answered:\n{tail(self.log_path)}")

    def _candidate_ports(self) -> Iterator[int]:
        if self._asked_port:
            if not is_free(self._asked_port):
                raise EmbeddedServerError(f"port {self._asked_port} is taken by another program")
            yield self._asked_port
            return
        remembered = read_number(self._port_file)
        if remembered is not None and is_free(remembered):
            yield remembered
        for _ in range(3):
            yield pick_free_port()

    def _wait_for_answer(self, deadline: float) -> bool:
        """True once the server answers, false when it is not running (any more)."""
        while self.is_running():
            if self._answers():
                return True
            if time.monotonic() > deadline:
                waited = f"{self.start_timeout_seconds:.0f} s"
                raise EmbeddedServerError(f"{self.title} is silent after {waited}:\n{tail(self.log_path)}")
            time.sleep(POLL_SECONDS)
        return False

    def _find(self) -> psutil.Process | None:
        child = self._child
        if child is not None and child.poll() is None:
            return process_with(child.pid)
        return self._find_adoptable()

    def _claim(self) -> None:
        if self._ownership.try_acquire():
            self._owner_pid = os.getpid()
            atexit.unregister(self._stop_at_exit)
            atexit.register(self._stop_at_exit)

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner_pid:  # a forked child inherits this hook, but not the duty
            self.stop()

    def _abandon_launch(self) -> None:
        if self._child is not None:
            self._shut_down()
            self._reap()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait(timeout=10)
            self._child = None

    def _exclusive(self) -> AbstractContextManager[None]:
        return exclusive(self._start_lock, timeout_seconds=2 * self.start_timeout_seconds)
