"""A webhook receiver that verifies every signature, and sometimes rejects a message."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Lock, Thread
from typing import Any, Final

REFUSED_SHARE: Final = 0.1


class WebhookReceiver:
    """The messages of one endpoint. Memory grows by one id per message."""

    def __init__(self, seed: int) -> None:
        self.secret = ""
        self.taken: set[str] = set()
        self.repeats = 0
        self.refused = 0
        self.forged = 0
        self.refuses = True
        self.port = 0
        self._lock = Lock()
        self._random = Random(seed)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/credits"

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Store a delivery and return the response status."""
        with self._lock:
            if not self._is_genuine(headers, body):
                self.forged += 1
                return 400
            if self.refuses and self._random.random() < REFUSED_SHARE:
                self.refused += 1
                return 503
            message_id = headers["webhook-id"]
            self.repeats += message_id in self.taken
            self.taken.add(message_id)
            return 204

    def _is_genuine(self, headers: dict[str, str], body: bytes) -> bool:
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        return f"v1,{expected}" in headers["webhook-signature"].split(" ")


@contextmanager
def receiving(receiver: WebhookReceiver) -> Iterator[WebhookReceiver]:
    """Run a receiver that listens on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
