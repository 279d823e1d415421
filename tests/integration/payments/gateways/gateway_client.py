"""The payer's browser on the sandbox's pages, and the shop's webhook listener."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import httpx

from domain.payments.gateway import Checkout


class Form(HTMLParser):
    """The form of a page: its action, its fields, and the actions of its buttons."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.method = ""
        self.action = ""
        self.fields: dict[str, str] = {}
        self.buttons: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.method, self.action = given.get("method", "get"), given.get("action", "")
        elif tag == "input" and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")
        elif tag == "button" and "formaction" in given:
            self.buttons.append(given["formaction"])
        elif tag == "a":
            self.links.append(given.get("href", ""))


class Payer:
    """A browser without scripts, on the gateway's page."""

    def __init__(self, sandbox_url: str) -> None:
        self._client = httpx.Client(base_url=sandbox_url)

    def open(self, checkout: Checkout) -> Form:
        """Open the gateway's page and return its form."""
        answer = self._client.request(checkout.method, checkout.url, data=dict(checkout.fields) or None)
        assert answer.status_code == 200, answer.text
        return Form(answer.text)

    def choose(self, checkout: Checkout, outcome: str, amount: int | None = None) -> Form:
        """Press a button of the gateway's page, and return the form that returns to the shop."""
        page = self.open(checkout)
        button = next(action for action in page.buttons if action.endswith(f"/{outcome}"))
        answer = self._client.post(button, data={"amount": "" if amount is None else str(amount)})
        assert answer.status_code == 200, answer.text
        return Form(answer.text)

    def close(self) -> None:
        self._client.close()


class ReceivedWebhook(NamedTuple):
    """A received webhook request."""

    body: bytes
    headers: dict[str, str]


class WebhookListener:
    """Receives webhooks, and responds with `status`."""

    def __init__(self) -> None:
        self.received_webhooks: list[ReceivedWebhook] = []
        self.status = 200
        webhook_listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook_listener.received_webhooks.append(
                    ReceivedWebhook(body, {name.lower(): value for name, value in self.headers.items()})
                )
                self.send_response(webhook_listener.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/gateways/razorpay/webhooks"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Run a webhook listener."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
