"""Requests that are refused before any handler: other hosts and sites, and bodies that are not small JSON."""

from __future__ import annotations

import pytest

from tests.integration.api.ledger_api import HOST, problem_of

GRANT = b'{"credits": 5, "kind": "admin", "reason": "x"}'
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("host", [HOST, "localhost", "localhost:9999", "LOCALHOST"])
def test_own_hosts_are_accepted(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:8001", "localhost.evil.example", "", "[", "localhost:80:80"],
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/organisations/org-1/balance", "/docs", "/nowhere"])
def test_other_hosts_are_refused(client, host, path):
    response = client.get(path, headers={"Host": host})
    assert response.status_code == 421
    assert problem_of(response) == "host-not-allowed"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_other_sites_cannot_write(client, organisation, headers):
    response = client.post(f"{organisation}/grants", content=GRANT, headers=JSON | headers)
    assert response.status_code == 403
    assert problem_of(response) == "cross-site-request"


def test_other_sites_cannot_read_but_may_link_to_a_page(client):
    cross_site = {"Sec-Fetch-Site": "cross-site"}
    link = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    frame = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    assert client.get("/healthz", headers=cross_site).status_code == 403
    assert client.get("/docs", headers=cross_site | frame).status_code == 403
    assert client.get("/docs", headers=cross_site | link).status_code == 200


def test_own_pages_may_write(client, organisation):
    headers = JSON | {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"{organisation}/grants", content=GRANT, headers=headers).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/json"],
)
@pytest.mark.parametrize("content", [GRANT, b""])
def test_writes_must_be_json(client, organisation, content_type, content):
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.post(f"{organisation}/grants", content=content, headers=headers)
    assert response.status_code == 415
    assert problem_of(response) == "unsupported-media-type"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "Application/JSON; charset=utf-8"},
        {"Content-Type": 'application/json; x=y; Charset="UTF-8"'},
        JSON | {"Content-Encoding": "identity"},
    ],
)
def test_spellings_of_utf_8_are_accepted(client, organisation, headers):
    assert client.post(f"{organisation}/grants", content=GRANT, headers=headers).status_code == 201


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", '"iso-8859-1"', "utf-8x"])
def test_other_charsets_are_refused(client, organisation, charset):
    headers = {"Content-Type": f"application/json; charset={charset}"}
    response = client.post(f"{organisation}/grants", content=GRANT, headers=headers)
    assert response.status_code == 415
    assert problem_of(response) == "unsupported-media-type"


@pytest.mark.parametrize("encoding", ["gzip", "br", "Deflate", "identity, gzip", "nonsense"])
def test_encoded_bodies_are_refused(client, organisation, encoding):
    headers = JSON | {"Content-Encoding": encoding}
    response = client.post(f"{organisation}/grants", content=GRANT, headers=headers)
    assert response.status_code == 415
    assert problem_of(response) == "unsupported-media-type"
    assert response.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"credits=5",
        b'{"credits": NaN}',
        b'{"credits": -Infinity}',
        b'{"credits": 1, "credits": 2}',
        b'{"reason": "caf\xe9"}',
        b"\xef\xbb\xbf{}",
        '{"credits": 1}'.encode("utf-16"),
        b'{"credits": ' + b"9" * 5_000 + b"}",
        b"[" * 30_000 + b"]" * 30_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"credits": 1}{}',
    ],
)
def test_what_is_not_json_is_refused(client, organisation, content):
    response = client.post(f"{organisation}/grants", content=content, headers=JSON)
    assert response.status_code == 400, response.text
    assert problem_of(response) == "malformed-json"
    assert not any(word in response.text for word in ("sys.", "codec", "decode", "4300"))


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b'{"credits": NaN}', "the body is not JSON: NaN is not a JSON number"),
        (b'{"a": 1, "a": 2}', "the body is not JSON: a field name is repeated"),
        (b'{"a": "caf\xe9"}', "the body is not UTF-8: byte 11 is invalid"),
        (b"\xef\xbb\xbf{}", "the body begins with a byte order mark, which JSON does not allow"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "the body has a number with thousands of digits"),
        (b"[" * 30_000 + b"]" * 30_000, "the body is nested too deeply"),
        (b'{"a" 1}', "the body is not JSON: Expecting ':' delimiter, at line 1, column 6"),
    ],
)
def test_the_problem_names_the_json_error(client, organisation, content, detail):
    response = client.post(f"{organisation}/grants", content=content, headers=JSON)
    assert response.json()["detail"] == detail


@pytest.mark.parametrize(
    ("headers", "change", "sentence"),
    [
        (
            {"Idempotency-Key": "caf\u00e9".encode()},
            {},
            "Idempotency-Key: Input should have printable ASCII characters only",
        ),
        ({}, {"reason": "a\tb"}, "reason: Input should have no control characters"),
    ],
)
def test_a_violated_pattern_is_described_in_words(client, organisation, headers, change, sentence):
    body = {"credits": 5, "kind": "admin", "reason": "x"} | change
    response = client.post(f"{organisation}/grants", json=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["detail"] == sentence


@pytest.mark.parametrize("number", [b"1e999", b"-0.0", b"1e2", b"[" * 500 + b"]" * 500])
def test_json_of_the_wrong_shape_is_refused(client, organisation, number):
    content = b'{"credits": %b, "kind": "admin", "reason": "x"}' % number
    response = client.post(f"{organisation}/grants", content=content, headers=JSON)
    assert problem_of(response) == "invalid-request"


def _body(size: int) -> bytes:
    return GRANT + b" " * (size - len(GRANT))


def test_a_body_of_64_kib_is_the_maximum(client, organisation):
    path = f"{organisation}/grants"
    assert client.post(path, content=_body(65_536), headers=JSON).status_code == 201
    response = client.post(path, content=_body(65_537), headers=JSON)
    assert response.status_code == 413
    assert problem_of(response) == "body-too-large"


def test_a_chunked_body_is_counted(client, organisation):
    def chunks(count: int):
        yield GRANT
        for _ in range(count):
            yield b" " * 1_024

    path = f"{organisation}/grants"
    assert client.post(path, content=chunks(60), headers=JSON).status_code == 201
    response = client.post(path, content=chunks(70), headers=JSON)
    assert response.status_code == 413
    assert problem_of(response) == "body-too-large"


def test_a_wrong_content_length_does_not_bypass_the_limit(client, organisation):
    for length in ("9" * 40, "65537"):
        headers = JSON | {"Content-Length": length}
        assert client.post(f"{organisation}/grants", content=GRANT, headers=headers).status_code == 413


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v1/organisations/a/b/c", "/v1/organisations//balance", "/healthz/"]
)
def test_unknown_addresses(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert problem_of(response) == "not-found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/organisations/a"),
        ("POST", "/healthz"),
        ("GET", "/v1/organisations/a/grants"),
        ("FROB", "/docs"),
    ],
)
def test_unknown_methods(client, method, path):
    response = client.request(method, path)
    assert response.status_code == 405
    assert problem_of(response) == "method-not-allowed"
    assert response.headers["allow"]


@pytest.mark.parametrize("request_id", ["", "two words", "x" * 129, "tab\t"])
def test_an_invalid_request_id_is_replaced(client, request_id):
    response = client.get("/healthz", headers={"X-Request-Id": request_id})
    assert response.headers["x-request-id"].startswith("request-")


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json", "/problems/not-found", "/metrics"])
def test_head_answers_like_get_without_the_content(client, path):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # the previous response is included
        assert head.headers["content-length"] == get.headers["content-length"]


def test_head_of_unknown_resources_and_of_writes(client, organisation):
    unknown = client.head("/v1/organisations/nobody/balance")
    assert (unknown.status_code, unknown.content) == (404, b"")
    assert unknown.headers["content-type"] == "application/problem+json"
    refused = client.head(f"{organisation}/grants")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert client.post("/healthz").headers["allow"] == "GET, HEAD"


def test_head_has_its_own_metric(ledger_api):
    with ledger_api.client() as client:
        client.head("/healthz")
        text = client.get("/metrics").text
    assert 'creditledger_http_requests_total{method="HEAD",route="/healthz",status="200"} 1.0' in text


def test_answers_are_not_stored_or_sniffed(client):
    headers = client.get("/healthz").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
