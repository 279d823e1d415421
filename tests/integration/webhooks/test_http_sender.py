"""One delivery attempt over real HTTP: to a checked address, with a time-out."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from domain.webhooks.endpoints import signed_headers
from infra.webhooks.http_sender import HttpSender, Outcome
from tests.integration.webhooks.receiver import Receiver, receiving

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="  # noqa: S105
HEADERS = signed_headers([SECRET], "msg_1", b'{"a":1}', datetime.now(UTC))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as listening:
        yield listening


def send(sender: HttpSender, url: str) -> Outcome:
    return sender.send(url, HEADERS, b'{"a":1}')


def allow_private_addresses(**options: Any) -> HttpSender:
    return HttpSender(allow_private=True, **options)


def test_a_delivery_arrives_complete(receiver: Receiver) -> None:
    assert send(allow_private_addresses(), receiver.url) == Outcome(204, None)
    (received,) = receiver.received
    assert (received.path, received.body) == ("/credits?token=SECRET", b'{"a":1}')
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert received.headers["content-type"] == "application/json"
    assert received.is_signed_with(SECRET)
    assert not received.is_signed_with("whsec_YW5vdGhlcg==")


@pytest.mark.parametrize("status", [199 + 101, 301, 307, 400, 410, 500, 503])
def test_every_status_but_success_fails_and_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    outcome = send(allow_private_addresses(), receiver.url)
    assert outcome == Outcome(status, f"it answered {status}")
    assert outcome.is_gone == (status == 410)
    assert [each.path for each in receiver.received] == ["/credits?token=SECRET"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("hang", "it did not answer in time"),
        ("drip", "it did not answer in time"),
        ("drop", "it closed the connection without an answer"),
    ],
)
def test_a_receiver_that_does_not_respond(receiver: Receiver, answer: str, words: str) -> None:
    receiver.answers = [answer]
    began = time.monotonic()
    assert send(allow_private_addresses(within_s=0.5), receiver.url) == Outcome(None, words)
    assert time.monotonic() - began < 2


def test_no_server_listens() -> None:
    with socket.socket() as taken:  # bound, but nothing accepts connections
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        assert send(allow_private_addresses(), url) == Outcome(None, "it refused the connection")


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"x" * 40_000])
def test_a_response_that_is_not_http(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4_096)
                connection.sendall(answer)
                with suppress(ConnectionError):
                    connection.recv(4_096)

        thread = Thread(target=accept)
        thread.start()
        url = f"http://no-http.example:{server.getsockname()[1]}/"
        assert send(allow_private_addresses(resolve=speak), url) == Outcome(None, "its answer is not HTTP")
        thread.join()


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.8"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["93.184.216.34", "192.168.0.1"],
    ],
)
def test_a_name_with_a_private_address_is_not_called(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("it was called"))
    sender = HttpSender(allow_private=False, resolve=lambda host, port: addresses)
    outcome = send(sender, "https://hooks.example/")
    assert outcome == Outcome(None, "its host name has an address outside the public internet")


def test_the_address_that_was_checked_is_the_one_that_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that returns a public address first and a private one later does not bypass the check."""
    answers = iter([["93.184.216.34", "93.184.216.35"], ["127.0.0.1"]])
    called = []

    def connect(address: tuple[str, int], timeout: float) -> Any:
        called.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    sender = HttpSender(allow_private=False, resolve=lambda host, port: next(answers))
    assert send(sender, "https://hooks.example/") == Outcome(None, "it refused the connection")
    assert called == [("93.184.216.34", 443), ("93.184.216.35", 443)]
    assert next(answers) == ["127.0.0.1"], "the name was resolved twice"


@pytest.mark.parametrize(
    "url", ["http://hooks.example/", "https://127.0.0.1/", "https://user@hooks.example/"]
)
def test_a_stored_address_is_checked_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("it was called"))
    assert not send(HttpSender(allow_private=False, resolve=lambda *_: ["93.184.216.34"]), url).delivered


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".example", "a..example"])
def test_a_name_without_an_address(host: str) -> None:
    assert send(allow_private_addresses(), f"https://{host}/") == Outcome(
        None, "its host name has no address"
    )


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        """A certificate for hooks.example and its key, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
        names = [x509.DNSName("hooks.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, hashes.SHA256())
        )
        path = tmp_path / "certificate.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    @pytest.fixture
    def tls_receiver(self, certificate: Path) -> Iterator[Receiver]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.asked_for: list[Any] = []
        context.sni_callback = lambda _, name, __: self.asked_for.append(name)
        with receiving(Receiver(), context) as listening:
            yield listening

    def test_tls_uses_the_name_of_the_url(self, tls_receiver: Receiver, certificate: Path) -> None:
        tls = ssl.create_default_context(cafile=str(certificate))
        sender = allow_private_addresses(resolve=lambda host, port: ["127.0.0.1"], tls=tls)
        url = f"https://hooks.example:{tls_receiver.port}/credits"
        assert send(sender, url) == Outcome(204, None)
        (received,) = tls_receiver.received
        assert received.headers["host"] == f"hooks.example:{tls_receiver.port}"
        assert self.asked_for == ["hooks.example"]

    def test_a_certificate_for_another_name(self, tls_receiver: Receiver, certificate: Path) -> None:
        tls = ssl.create_default_context(cafile=str(certificate))
        sender = allow_private_addresses(resolve=lambda host, port: ["127.0.0.1"], tls=tls)
        outcome = send(sender, f"https://other.example:{tls_receiver.port}/")
        assert outcome == Outcome(None, "its certificate is not trusted")
        assert tls_receiver.received == []

    def test_an_untrusted_certificate(self, tls_receiver: Receiver) -> None:
        sender = allow_private_addresses(resolve=lambda host, port: ["127.0.0.1"])
        outcome = send(sender, f"https://hooks.example:{tls_receiver.port}/")
        assert outcome == Outcome(None, "its certificate is not trusted")

    def test_no_tls_at_all(self, receiver: Receiver) -> None:
        outcome = send(allow_private_addresses(within_s=2), f"https://127.0.0.1:{receiver.port}/")
        assert not outcome.delivered
        assert receiver.received == []
