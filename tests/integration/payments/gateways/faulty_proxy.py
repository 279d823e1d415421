"""A proxy between a client and a server that can break requests at the worst moments."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto


class Fault(Enum):
    """A fault of one request."""

    NONE = auto()
    CUT_BEFORE = auto()
    """The connection breaks before the server gets the request."""
    CUT_AFTER = auto()
    """The server executes the request, and its response is lost."""
    SLOW = auto()
    """The server executes the request, and its response is slow."""
    HOLD = auto()
    """The server executes the request; its response stays in the proxy until the proxy is closed."""
    ERROR_500 = auto()
    TOO_MANY = auto()
    NO_JSON = auto()
    """An intermediate proxy responds with its own page."""


_ANSWERS = {
    Fault.ERROR_500: b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    Fault.TOO_MANY: b"HTTP/1.1 429 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    Fault.NO_JSON: b"HTTP/1.1 200 X\r\nContent-Type: text/html\r\nContent-Length: 7\r\n\r\n<html/>",
}


class FaultyProxy:
    """Forwards connections to a port, and gives requests the requested faults."""

    def __init__(self, port: int, *, slow_s: float) -> None:
        self._port = port
        self._slow_s = slow_s
        self._faults: list[Fault] = []
        self._closed = threading.Event()
        self.holds = threading.Event()
        """Set while a response stays in the proxy."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def break_requests(self, *faults: Fault) -> None:
        """Give each of the next requests one of these faults; later requests pass."""
        self._faults = list(faults)

    def run(self) -> None:
        """Accept connections until closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Stop accepting."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while request := _read_message(client):
                fault = self._faults.pop(0) if self._faults else Fault.NONE
                if fault is Fault.CUT_BEFORE:
                    return
                if fault in _ANSWERS:
                    client.sendall(_ANSWERS[fault])
                    continue
                with socket.create_connection(("127.0.0.1", self._port)) as server:
                    server.sendall(request)
                    answer = _read_message(server)
                if fault is Fault.CUT_AFTER:
                    return
                if fault is Fault.HOLD:
                    self.holds.set()
                    self._closed.wait()
                    return
                if fault is Fault.SLOW:
                    time.sleep(self._slow_s)
                client.sendall(answer)


@contextmanager
def faulty_proxy_to(port: int, *, slow_s: float) -> Iterator[FaultyProxy]:
    """Yield a proxy to a server."""
    proxy = FaultyProxy(port, slow_s=slow_s)
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


def _read_message(connection: socket.socket) -> bytes:
    """Return one HTTP message with its body, or an empty one at the end of the connection."""
    message = b""
    while b"\r\n\r\n" not in message:
        received = connection.recv(65_536)
        if not received:
            return b""
        message += received
    head, _, body = message.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        received = connection.recv(65_536)
        if not received:
            return b""
        body += received
    return head + b"\r\n\r\n" + body
