"""Life cycle of the embedded servers: start, adopt, supervise, stop.

Each server has one directory. Any number of processes may call `start` on it: the first process starts the
server, the others use the running one. The process that holds `owner.lock` stops the server when it exits. If
that process is killed, the kernel releases the lock, and the next `start` adopts the running server.
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
    """A server process with its own directory, on 127.0.0.1.

    With `port` 0 it picks a free port and uses it for later starts while it is free. An adopted server keeps
    the port and the settings of its start.
    """

    title: ClassVar[str]
    start_timeout_seconds: ClassVar[float] = 120.0

    def __init__(self, root: Path, *, port: int = 0) -> None:
        self.root = root.resolve()
        self.log_path = self.root / "server.log"
        self._account = Account.for_servers()
        self._requested_port = port
        self._port_file = self.root / "port"
        self._start_lock = self.root / "start.lock"
        self._ownership = FileLock(self.root / "owner.lock")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start the server or adopt the running one. Wait until it answers, and return its address.

        Raises:
            EmbeddedServerError: the server does not start. The message contains the end of its log.
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
        """Restart the server if it exited. Cheap while it runs. Raises as `start` does."""
        return self.address if self.is_running() else self.start()

    def stop(self) -> None:
        """Stop the server and wait for its end, unless another live process owns it.

        Raises:
            EmbeddedServerError: a process survives all signals.
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
        """Return whether the server's main process is alive. It may not answer yet."""
        return self._find() is not None

    @property
    def pid(self) -> int:
        """Process id of the running server. Raises EmbeddedServerError if it does not run."""
        process = self._find()
        if process is None:
            raise EmbeddedServerError(f"{self.title} in {self.root} is not running")
        return int(process.pid)

    @property
    def port(self) -> int:
        """The port of the last start. Raises EmbeddedServerError if it was never started."""
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
        """Address for clients."""

    @abstractmethod
    def _install(self) -> None:
        """Install everything that a start needs. Do nothing if it is installed already."""

    @abstractmethod
    def _launch(self, port: int, log: int) -> subprocess.Popen[bytes]:
        """Start the server process."""

    @abstractmethod
    def _find_adoptable(self) -> psutil.Process | None:
        """Return the main process of a server in this directory, also if another process started it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the server answers a client now."""

    @abstractmethod
    def _clear_remains(self) -> None:
        """Remove orphaned processes and stale files after a crash."""

    @abstractmethod
    def _shut_down(self) -> None:
        """Stop the server and all of its child processes."""

    def _make_root(self) -> None:
        if not self.root.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            # The server's account must be able to enter the folder, but not to create files in it.
            self.root.chmod(0o700 if self._account.user_id is None else 0o711)
        if not self._account.can_enter(self.root):
            raise EmbeddedServerError(
                f"{self.title} runs as the user `nobody`, who cannot enter {self.root}: "
                "choose another directory, such as /var/lib/creditledger"
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
            if is_free(port):  # the port was not the cause
                break
        raise EmbeddedServerError(f"{self.title} exited before it answered:\n{tail(self.log_path)}")

    def _candidate_ports(self) -> Iterator[int]:
        if self._requested_port:
            if not is_free(self._requested_port):
                raise EmbeddedServerError(f"port {self._requested_port} is in use by another program")
            yield self._requested_port
            return
        last_port = read_number(self._port_file)
        if last_port is not None and is_free(last_port):
            yield last_port
        for _ in range(3):
            yield pick_free_port()

    def _wait_for_answer(self, deadline: float) -> bool:
        """Wait until the server answers. Return False if it does not run."""
        while self.is_running():
            if self._answers():
                return True
            if time.monotonic() > deadline:
                waited = f"{self.start_timeout_seconds:.0f} s"
                raise EmbeddedServerError(
                    f"{self.title} does not answer after {waited}:\n{tail(self.log_path)}"
                )
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
        if os.getpid() == self._owner_pid:  # a forked child inherits this hook but must not run it
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
