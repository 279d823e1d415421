"""Webhook receivers: real HTTP servers on loopback, with an independent verification of signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = int | str
"""A status, or "drop": close the connection; "hang": until the receiver ends; "drip": byte by byte."""


@dataclass(frozen=True)
class Received:
    """A received request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """Verify a signature as the standard describes."""
        kind, _, key = secret.partition("_")
        assert kind == "whsec"
        signed = b".".join(
            [self.headers["webhook-id"].encode(), self.headers["webhook-timestamp"].encode(), self.body]
        )
        mac = hmac.new(base64.standard_b64decode(key), signed, hashlib.sha256)
        expected = "v1," + base64.standard_b64encode(mac.digest()).decode("ascii")
        return any(
            hmac.compare_digest(expected, each) for each in self.headers["webhook-signature"].split(" ")
        )


class Receiver:
    """Responds with each of `answers` once, and then always with the last one."""

    def __init__(self, answers: Sequence[Answer] = (204,)) -> None:
        self.answers = list(answers)
        self.received: list[Received] = []
        self.on_receipt: Callable[[], None] = lambda: None
        self.port = 0
        self.ending = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/credits?token=SECRET"

    @property
    def ids(self) -> list[str]:
        return [each.message_id for each in self.received]

    def take(self, received: Received) -> Answer:
        with self._lock:
            self.received.append(received)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.on_receipt()
        return answer

    def wait_for(self, count: int, within_s: float = 15.0) -> list[Received]:
        """Wait for a number of requests and return them, or fail."""
        deadline = time.monotonic() + within_s
        while len(self.received) < count:
            assert time.monotonic() < deadline, f"{len(self.received)} of {count} deliveries arrived"
            time.sleep(0.01)
        return list(self.received)


@contextmanager
def receiving(receiver: Receiver, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver that listens on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.take(Received(self.path, headers, body, time.monotonic()))
            if answer == "hang":
                receiver.ending.wait(30)
            elif answer == "drip":
                self._drip()
            elif isinstance(answer, int):
                self.send_response(answer)
                if 300 <= answer < 400:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

        def _drip(self) -> None:
            try:
                while not receiver.ending.wait(0.05):
                    self.wfile.write(b"H")
            except OSError:
                pass

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Log nothing: clients that disconnect are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()
