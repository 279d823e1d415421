"""Sends a delivery to an address that somebody else chose, without becoming a way into our own network.

The host's name is resolved once, every address it has is checked, and the connection is made to a checked
address itself: asking again, as an HTTP library would, could lead elsewhere. The name goes into the Host
header and into TLS. Redirects are not followed. One deadline covers all of it, however slowly a receiver
drips, and little of an answer is read: its status is all that counts.
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
"""Returns the addresses of a host. Raises OSError where it has none."""


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended: the status of the answer, if there was one, and what was wrong, if anything."""

    status: int | None
    error: str | None

    @property
    def delivered(self) -> bool:
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver said that it wants no more."""
        return self.status == 410


class AddressNotAllowed(Exception):
    """A name leads where deliveries may not go."""


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, as the system finds them.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class HttpSender:
    """Sends deliveries. Used by any number of threads."""

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
        """Send a delivery and say how that went. Sentences quote nothing of the address or the answer."""
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
        # One that is not public spoils all: a name that has both is not to be trusted with either.
        if not self._allow_private and not all(map(is_public, addresses)):
            raise AddressNotAllowed("its name leads to an address that is not of the public internet")
        return addresses


def _connect_first(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    failure: OSError = OSError("its name has no address")
    for address in addresses:
        try:
            # An address, not a name: nothing is asked again.
            return socket.create_connection((address, port), min(CONNECT_TIMEOUT_S, _remaining_s(deadline)))
        except OSError as error:
            failure = error
    raise failure


def _post(
    connection: socket.socket, target: WebhookTarget, headers: Mapping[str, str], body: bytes, deadline: float
) -> int:
    """Send the request and return the status of its answer."""
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
        pass  # an interim answer: another one follows
    with suppress(OSError, h11.RemoteProtocolError):
        _drain(http, connection, deadline)
    return int(event.status_code)


def _drain(http: h11.Connection, connection: socket.socket, deadline: float) -> None:
    """Read a little of the answer's content, so that a receiver is not cut off while it writes."""
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
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


# The first that fits.
_ERROR_TEXTS: Final[Sequence[tuple[type[Exception], str]]] = (
    (TimeoutError, "it did not answer in time"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted"),
    (ssl.SSLError, "no TLS connection came about"),
    (socket.gaierror, "its name has no address"),
    (UnicodeError, "its name has no address"),  # a label of more than 63 characters
    (ConnectionRefusedError, "it refused the connection"),
    (ConnectionError, "it closed the connection without an answer"),
    (h11.RemoteProtocolError, "its answer is not HTTP"),
    (OSError, "it cannot be reached"),
)


def _describe_error(error: Exception) -> str:
    return next(words for kind, words in _ERROR_TEXTS if isinstance(error, kind))
