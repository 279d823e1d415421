"""HTTP client for gateways. A call returns a response or raises GatewayUnavailable or GatewayRefused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import msgspec

from domain.payments.gateway import GatewayRefused, GatewayUnavailable

_RETRYABLE_STATUSES: Final = frozenset({401, 403, 407, 408, 409, 425, 429})
"""Refusals that do not concern the requested action: wrong keys, a concurrent request, a rate limit.

The ledger must not treat them as a final refusal: it would abandon a payment that may be paid.
"""
_CONNECT_TIMEOUT_S: Final = 5.0
_QUOTED_CHARACTERS: Final = 200

Explain = Callable[[Any], tuple[str, str]]
"""Reads a gateway's error body. Returns its error code and its message."""


class Transport:
    """A connection pool to one gateway. Threads may share it.

    `get`, `post` and `delete` have the signatures that Razorpay's official client expects of a session.
    """

    def __init__(self, gateway: str, timeout_s: float, explain: Explain) -> None:
        self._gateway = gateway
        self._explain = explain
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
            follow_redirects=False,
        )

    def get(self, url: str, **options: Any) -> httpx.Response:
        """Send a GET. Options and errors as for `post`, but without `data`."""
        return self._send("GET", url, options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        """Send a POST. Options: `auth`, `params`, `headers`, `data` (the body, as text).

        Raises:
            GatewayUnavailable: no response, an invalid response, or one that allows a retry.
            GatewayRefused: the gateway refuses the request finally.
        """
        return self._send("POST", url, options)

    def delete(self, url: str, **options: Any) -> httpx.Response:
        """Send a DELETE. Options and errors as for `post`."""
        return self._send("DELETE", url, options)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(self, method: str, url: str, options: Mapping[str, Any]) -> httpx.Response:
        # Razorpay's client sends a header value with a trailing space, which HTTP does not allow.
        headers = {name: value.strip() for name, value in options.get("headers", {}).items()}
        try:
            response = self._client.request(
                method,
                url,
                params=options.get("params") or None,
                headers=headers,
                content=options.get("data"),
                auth=options.get("auth"),
            )
        except httpx.HTTPError as error:
            # Do not chain the error: it contains the request with our keys.
            raise GatewayUnavailable(f"{self._gateway} does not answer: {type(error).__name__}") from None
        return self._check(response)

    def _check(self, response: httpx.Response) -> httpx.Response:
        status = response.status_code
        try:
            body = msgspec.json.decode(response.content)
        except (ValueError, msgspec.MsgspecError):
            body = None
        if response.is_success and isinstance(body, dict):
            return response
        code, message = self._explain(body) if isinstance(body, dict) else ("", "")
        text = " ".join(filter(None, (code, message)))[:_QUOTED_CHARACTERS]
        if 400 <= status < 500 and status not in _RETRYABLE_STATUSES:
            raise GatewayRefused(f"{self._gateway} refuses: {text or status}", code=code or str(status))
        raise GatewayUnavailable(f"{self._gateway} answers with {status} {text}".rstrip())
