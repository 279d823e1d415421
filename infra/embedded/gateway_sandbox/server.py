"""The server of the sandbox gateway. It listens on loopback only, because any client can decide payments."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

import uvicorn
from fastapi import FastAPI

from infra.embedded.errors import EmbeddedServerError
from infra.embedded.files import write_atomically
from infra.embedded.gateway_sandbox.checkout import checkout_router
from infra.embedded.gateway_sandbox.keys import KeyFolder
from infra.embedded.gateway_sandbox.outcomes import ReturnRedirects
from infra.embedded.gateway_sandbox.payglocal_api import (
    PayGlocalApiError,
    payglocal_error_response,
    payglocal_router,
)
from infra.embedded.gateway_sandbox.payglocal_wire import PayGlocalTokenCodec
from infra.embedded.gateway_sandbox.razorpay_api import (
    RazorpayApiError,
    razorpay_error_response,
    razorpay_router,
)
from infra.embedded.gateway_sandbox.state import RequestRejected, SandboxState
from infra.embedded.gateway_sandbox.webhook_sender import WebhookSender

LOOPBACK: Final = "127.0.0.1"
_STATE_FILE: Final = "book.json"
_ENVIRONMENT: Final = "environment"


class SandboxGateway:
    """Simulates Razorpay and PayGlocal in one server. Its state is in a data directory."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int,
        webhook_url: str,
        clock_s: Callable[[], float] = time.time,
        retries_after_s: float = 1.0,
    ) -> None:
        self._folder = folder = KeyFolder(data_dir)
        keys = folder.keys()
        token_codec = PayGlocalTokenCodec(folder)
        self.state = SandboxState(folder.root / _STATE_FILE, clock_s)
        self.webhook_sender = WebhookSender(
            self.state, webhook_url, keys.razorpay_webhook_secret, retries_after_s=retries_after_s
        )
        self.port = port
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self.app.add_exception_handler(RazorpayApiError, razorpay_error_response)
        self.app.add_exception_handler(RequestRejected, razorpay_error_response)
        self.app.add_exception_handler(PayGlocalApiError, payglocal_error_response)
        return_redirects = ReturnRedirects(keys.razorpay_key_secret, token_codec)
        # The pages come first: Razorpay's checkout form needs no key secret, unlike other paths below /v1.
        self.app.include_router(
            checkout_router(self.state, keys.razorpay_key_id, token_codec, return_redirects)
        )
        self.app.include_router(razorpay_router(self.state, keys.razorpay_key_id, keys.razorpay_key_secret))
        self.app.include_router(payglocal_router(self.state, token_codec))

    @property
    def url(self) -> str:
        """URL of the sandbox."""
        return f"http://{LOOPBACK}:{self.port}"

    def write_environment_file(self) -> Path:
        """Write the settings for this sandbox to a file that only the current user can read.

        Return its path.
        """
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in self._folder.settings(self.url).items())
        path = self._folder.root / _ENVIRONMENT
        write_atomically(path, "".join(lines))
        return path

    def run(self, stop: Event) -> None:
        """Serve requests and deliver webhooks until `stop` is set.

        Raises:
            EmbeddedServerError: the port is in use.
        """
        with self.serving():
            stop.wait()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Context manager that serves requests and delivers webhooks.

        Raises:
            EmbeddedServerError: the port is in use.
        """
        stop = Event()
        try:
            listener = socket.create_server((LOOPBACK, self.port))
        except OSError as error:
            raise EmbeddedServerError(
                f"the sandbox gateway cannot listen on port {self.port}: {error.strerror}"
            ) from error
        server = _Server(uvicorn.Config(self.app, log_level="warning", access_log=False, lifespan="off"))
        threads = [
            Thread(target=server.run, args=([listener],), name="sandbox-gateway", daemon=True),
            Thread(target=self.webhook_sender.run, args=(stop,), name="sandbox-webhooks", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield  # connections wait in the listener's queue until the server accepts them
        finally:
            stop.set()
            server.should_exit = True
            for thread in threads:
                thread.join()
            listener.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not handle signals here: the process handles them."""
        yield
