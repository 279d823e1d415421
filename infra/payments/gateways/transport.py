"""HTTP to a gateway: what comes back is an answer, or one of the two errors that the port knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import msgspec

from domain.payments.gateway import GatewayRefused, GatewayUnavailable

_RETRYABLE_STATUSES: Final = frozenset({401, 403, 407, 408, 409, 425, 429})
"""Refusals that say nothing about what was asked: our keys are wrong, another request is under way, too many.

Taking them for a "no" could write a payment off whose money is there.
"""
_CONNECT_TIMEOUT_S: Final = 5.0
_QUOTED_CHARACTERS: Final = 200

Explain = Callable[[Any], tuple[str, str]]
"""Reads a gateway's body of an error: its own code, and its sentence."""


class Transport:
    """A connection pool to one gateway; threads may share it.

    Its `get`, `post` and `delete` take what Razorpay's official client gives to a session, and return what it
    expects.
    """

    def __init__(self, gateway: str, timeout_s: float, explain: Explain) -> None:
        self._gateway = gateway
        self._explain = explain
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
            follow_redirects=False,
        )

    def get(self, url: str, **options: Any) -> httpx.Response:
        """Send a GET; options as for `post`, which has a body on top."""
        return self._send("GET", url, options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        """Send a POST. Options: `auth`, `params`, `headers`, `data` (the body, as text).

        Raises:
            GatewayUnavailable: no answer, one that cannot be read, or one that says to come again.
            GatewayRefused: it will not, and would not the next time.
        """
        return self._send("POST", url, options)

    def delete(self, url: str, **options: Any) -> httpx.Response:
        """Send a DELETE; options as for `post`."""
        return self._send("DELETE", url, options)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _send(self, method: str, url: str, options: Mapping[str, Any]) -> httpx.Response:
        # Razorpay's client ends its own name with a blank, which HTTP does not allow.
        headers = {name: value.strip() for name, value in options.get("headers", {}).items()}
        try:
            answer = self._client.request(
                method,
                url,
                params=options.get("params") or None,
                headers=headers,
                content=options.get("data"),
                auth=options.get("auth"),
            )
        except httpx.HTTPError as error:
            # Not the error itself: it carries the request, and with it our keys.
            raise GatewayUnavailable(f"{self._gateway} gives no answer: {type(error).__name__}") from None
        return self._checked(answer)

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        status = answer.status_code
        try:
            body = msgspec.json.decode(answer.content)
        except (ValueError, msgspec.MsgspecError):
            body = None
        if answer.is_success and isinstance(body, dict):
            return answer
        code, sentence = self._explain(body) if isinstance(body, dict) else ("", "")
        said = " ".join(filter(None, (code, sentence)))[:_QUOTED_CHARACTERS]
        if 400 <= status < 500 and status not in _RETRYABLE_STATUSES:
            raise GatewayRefused(f"{self._gateway} refuses: {said or status}", code=code or str(status))
        raise GatewayUnavailable(f"{self._gateway} answers with {status} {said}".rstrip())
