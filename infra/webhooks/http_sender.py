"""Sends a delivery to a URL that a user chose, without giving that user access to our network.

The host name is resolved once and every address is checked. The connection goes to a checked address, because
a second look-up, as in an HTTP library, could return another address. The Host header and TLS use the name.
Redirects are not followed. One deadline covers the whole attempt, so a slow receiver cannot extend it. Only
the status of the response matters, so little of its body is read.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import h11
import msgspec

from domain.shared.errors import InvalidInput
from domain.webhooks.url_policy import WebhookTarget, check_url, is_public

TIMEOUT_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 5.0
RESPONSE_BYTES_MAX: Final = 16_384
_USER_AGENT: Final = "creditledger-webhooks/1"
_READ: Final = 4_096

Resolve = Callable[[str, int], Sequence[str]]
"""Returns the addresses of a host. Raises OSError if it has none."""


class Outcome(msgspec.Struct, frozen=True):
    """Outcome of an attempt: the HTTP status, None without a response, and the error, None if delivered."""

    status: int | None
    error: str | None

    @property
    def delivered(self) -> bool:
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no more deliveries (410 Gone)."""
        return self.status == 410


class AddressNotAllowed(Exception):
    """A host name has an address that deliveries may not use."""


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host from the system's resolver.

    Raises:
        OSError: the host has no address.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class HttpSender:
    """Sends deliveries. Threads may share it."""

    def __init__(
        self,
        *,
        allow_private: bool,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        within_s: float = TIMEOUT_S,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()
        self._within_s = within_s

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send a delivery and return the outcome. Error texts quote nothing of the URL or the response."""
        deadline = time.monotonic() + self._within_s
        try:
            target = check_url(url, allow_private=self._allow_private)
            with self._connect(target, deadline) as connection:
                status = _post(connection, target, headers, body, deadline)
        except (InvalidInput, AddressNotAllowed) as refusal:
            return Outcome(None, str(refusal))
        except (OSError, UnicodeError, h11.RemoteProtocolError) as error:
            return Outcome(None, _describe_error(error))
        if 200 <= status < 300:
            return Outcome(status, None)
        return Outcome(status, f"it answered {status}")

    def _connect(self, target: WebhookTarget, deadline: float) -> socket.socket:
        connection = _connect_first(self._addresses(target), target.port, deadline)
        if not target.is_tls:
            return connection
        try:
            connection.settimeout(_remaining_s(deadline))
            return self._tls.wrap_socket(connection, server_hostname=target.host)
        except BaseException:
            connection.close()
            raise

    def _addresses(self, target: WebhookTarget) -> Sequence[str]:
        addresses = self._resolve(target.host, target.port)
        # A single private address makes the name unacceptable, even if it also has public ones.
        if not self._allow_private and not all(map(is_public, addresses)):
            raise AddressNotAllowed("its host name has an address outside the public internet")
        return addresses


def _connect_first(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    failure: OSError = OSError("its host name has no address")
    for address in addresses:
        try:
            # Connect to the checked address, not to the name, which would be resolved again.
            return socket.create_connection((address, port), min(CONNECT_TIMEOUT_S, _remaining_s(deadline)))
        except OSError as error:
            failure = error
    raise failure


def _post(
    connection: socket.socket, target: WebhookTarget, headers: Mapping[str, str], body: bytes, deadline: float
) -> int:
    """Send the request and return the status of the response."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=RESPONSE_BYTES_MAX)
    request = h11.Request(
        method="POST",
        target=target.path,
        headers=[
            ("Host", target.authority),
            ("User-Agent", _USER_AGENT),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *headers.items(),
        ],
    )
    sent = [http.send(request), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
    connection.settimeout(_remaining_s(deadline))
    connection.sendall(b"".join(part or b"" for part in sent))
    while not isinstance(event := _next_event(http, connection, deadline), h11.Response):
        pass  # an informational response: the final one follows
    with suppress(OSError, h11.RemoteProtocolError):
        _drain(http, connection, deadline)
    return int(event.status_code)


def _drain(http: h11.Connection, connection: socket.socket, deadline: float) -> None:
    """Read a part of the response body, so that the receiver can finish writing."""
    read = 0
    while isinstance(event := _next_event(http, connection, deadline), h11.Data):
        read += len(event.data)
        if read > RESPONSE_BYTES_MAX:
            return


def _next_event(http: h11.Connection, connection: socket.socket, deadline: float) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        connection.settimeout(_remaining_s(deadline))
        received = connection.recv(_READ)
        if not received:
            raise ConnectionError
        http.receive_data(received)
    return event


def _remaining_s(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


# The first matching class decides.
_ERROR_TEXTS: Final[Sequence[tuple[type[Exception], str]]] = (
    (TimeoutError, "it did not answer in time"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted"),
    (ssl.SSLError, "the TLS connection failed"),
    (socket.gaierror, "its host name has no address"),
    (UnicodeError, "its host name has no address"),  # a label of more than 63 characters
    (ConnectionRefusedError, "it refused the connection"),
    (ConnectionError, "it closed the connection without an answer"),
    (h11.RemoteProtocolError, "its answer is not HTTP"),
    (OSError, "it cannot be reached"),
)


def _describe_error(error: Exception) -> str:
    return next(text for kind, text in _ERROR_TEXTS if isinstance(error, kind))
