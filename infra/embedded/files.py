"""Files of a server directory: locks, port, secrets and logs. Also the choice of free ports."""

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.embedded.errors import EmbeddedServerError

# These ports are below the ephemeral ranges of Linux and macOS. An ephemeral port could be assigned to a
# client while our server is down. A client could then even connect to itself.
_PORTS = range(20_000, 32_768)
_LOG_LIMIT_BYTES = 10_000_000
_TAIL_CHARACTERS = 2_000


class FileLock:
    """A lock between processes and threads. The kernel releases it when its holder exits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free. Return True also if this object already holds it."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def exclusive(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock at `path`. Raises EmbeddedServerError if another process holds it after the timeout."""
    lock = FileLock(path)
    deadline = time.monotonic() + timeout_seconds
    while not lock.try_acquire():
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"{path} is still locked by another process after {timeout_seconds:.0f} s"
            )
        time.sleep(0.02)
    try:
        yield
    finally:
        lock.release()


def write_atomically(path: Path, text: str) -> None:
    """Write a file that only the current user can read. A crash leaves either the old or the new text."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    rename_durably(temporary, path)


def rename_durably(source: Path, target: Path) -> None:
    """Rename within a folder and flush the folder, so that a power failure cannot undo it."""
    source.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_number(path: Path) -> int | None:
    """Return the number on the first line of a file; None if the file or the number is missing."""
    try:
        return int(path.read_text(encoding="utf-8").partition("\n")[0])
    except (OSError, ValueError):
        return None


def is_free(port: int) -> bool:
    """Return whether a server can listen on this loopback port now."""
    with socket.socket() as probe:
        # Servers set this option too: connections in TIME_WAIT must not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pick_free_port() -> int:
    """Return a free loopback port. Raises EmbeddedServerError if it finds none."""
    for _ in range(200):
        port = secrets.choice(_PORTS)  # not `random`: processes with the same seed would pick the same port
        if is_free(port):
            return port
    raise EmbeddedServerError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


@contextmanager
def appended_log(path: Path) -> Iterator[int]:
    """Context manager that yields the descriptor of a log file. A log that is too long is renamed to `.1`."""
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        path.rename(path.with_name(f"{path.name}.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def tail(path: Path) -> str:
    """Return the end of a log, for an error message."""
    try:
        text = path.read_bytes()[-4 * _TAIL_CHARACTERS :].decode("utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return text[-_TAIL_CHARACTERS:].strip() or "(the log is empty)"
