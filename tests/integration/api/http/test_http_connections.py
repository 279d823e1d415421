"""The app behind a real HTTP server: requests that a test client would normalise."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from threading import Thread

import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from api.app import create_app
from tests.integration.api.ledger_api import LedgerApi

BODY = b'{"time_zone": "UTC", "currency": "USD"}'


@pytest.fixture(scope="module")
def address(ledger_api: LedgerApi) -> Iterator[tuple[str, int]]:
    """The address of a server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: tuple[str, int] = listener.getsockname()
        hosts = frozenset({f"127.0.0.1:{address[1]}"})
        app = create_app(replace(ledger_api.services, registry=CollectorRegistry(), allowed_hosts=hosts))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        yield address
        server.should_exit = True
        thread.join()


@pytest.fixture
def connection(address: tuple[str, int]) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(*address, timeout=10)
    yield connection
    connection.close()


@pytest.fixture
def headers(ledger_api: LedgerApi) -> dict[str, str]:
    return {"Content-Type": "application/json", **ledger_api.staff}


def test_an_encoded_slash_is_part_of_the_id(connection, headers):
    connection.request("PUT", "/v1/organisations/wire%2Fa%20b", BODY, headers)
    response = connection.getresponse()
    assert (response.status, b'"wire/a b"' in response.read()) == (201, True)
    connection.request("GET", "/v1/organisations/wire/a%20b/balance")
    assert connection.getresponse().status == 404


@pytest.mark.parametrize("segment", ["%2E%2E", "..", "%FF", "%00"])
def test_dot_segments_in_a_path(connection, headers, segment):
    connection.request("PUT", f"/v1/organisations/{segment}", BODY, headers)
    assert connection.getresponse().status == 422


def test_head_sends_no_content_and_the_connection_stays_usable(connection):
    connection.request("HEAD", "/healthz")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")
    assert int(response.headers["content-length"]) > 0
    connection.request("GET", "/healthz")
    assert b"alive" in connection.getresponse().read()


def test_an_endless_body_is_cut_off(connection, headers):
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1_024

    connection.request("PUT", "/v1/organisations/wire-2", chunks(), headers, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, b"body-too-large" in response.read()) == (413, True)


def test_a_client_that_disconnects_early(address, connection, headers):
    with socket.create_connection(address) as hasty:
        head = f"PUT /v1/organisations/wire-3 HTTP/1.1\r\nHost: 127.0.0.1:{address[1]}\r\n"
        head += f"Authorization: {headers['Authorization']}\r\n"
        hasty.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200


def test_a_request_without_a_host_is_refused(address):
    with socket.create_connection(address, timeout=10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert plain.recv(64).split()[1] in (b"400", b"421")
