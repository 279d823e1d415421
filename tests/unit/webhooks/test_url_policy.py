"""The URLs that deliveries may go to."""

from __future__ import annotations

import pytest

from domain.shared.errors import InvalidInput
from domain.webhooks.url_policy import WebhookTarget, check_url, is_public


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", WebhookTarget("example.com", 443, "/", True)),
        ("https://Example.COM./a/b?x=1&y=%20", WebhookTarget("example.com", 443, "/a/b?x=1&y=%20", True)),
        ("https://example.com:8443/hook", WebhookTarget("example.com", 8443, "/hook", True)),
        ("https://93.184.216.34/", WebhookTarget("93.184.216.34", 443, "/", True)),
        ("https://[2606:4700::1111]:1024/", WebhookTarget("2606:4700::1111", 1024, "/", True)),
    ],
)
def test_a_public_address_over_tls(url: str, target: WebhookTarget) -> None:
    assert check_url(url, allow_private=False) == target
    assert check_url(url, allow_private=True) == target


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://example.com/x", "example.com"),
        ("https://example.com:443/x", "example.com"),
        ("https://example.com:8443/x", "example.com:8443"),
        ("http://127.0.0.1:8443/x", "127.0.0.1:8443"),
        ("http://localhost", "localhost"),
        ("https://[2606:4700::1111]:8443", "[2606:4700::1111]:8443"),
    ],
)
def test_the_host_header(url: str, authority: str) -> None:
    assert check_url(url, allow_private=True).authority == authority


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "printable"),
        ("https://example.com/ a", "printable"),
        ("https://exämple.com/", "printable"),
        ("https://example.com\\@evil.example/", "printable"),
        ("https://example.com/" + "a" * 2_048, "printable"),
        ("http://example.com/", "https address is needed"),
        ("ftp://example.com/", "https address is needed"),
        ("example.com/hook", "https address is needed"),
        ("https:///hook", "names no host"),
        ("https://exa%6dple.com/", "names no host"),
        ("https://user:password@example.com/", "no user"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com:99999/", "no address"),
        ("https://[::1/", "no address"),
        ("https://example.com:22/", "port"),
        ("https://example.com:80/", "port"),
        ("https://127.0.0.1/", "public internet"),
        ("https://169.254.169.254/latest/meta-data", "public internet"),
        ("https://[::ffff:93.184.216.34]/", "public internet"),
    ],
)
def test_a_url_that_is_not_allowed(url: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        check_url(url, allow_private=False)
    assert refused.value.field == "url"


def test_private_addresses_and_plain_http_may_be_allowed() -> None:
    assert check_url("http://127.0.0.1:9000/x", allow_private=True) == WebhookTarget(
        "127.0.0.1", 9000, "/x", False
    )
    with pytest.raises(InvalidInput):
        check_url("ftp://127.0.0.1/", allow_private=True)


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "2a00::1"],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.8.8"),  # noqa: S104
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16", "203.0.113.7"),
        *("::", "::1", "::ffff:10.0.0.1", "::ffff:93.184.216.34", "64:ff9b::a00:1", "64:ff9b:1::1"),
        *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001::1"),
        *("2001:db8::1", "2002:a00:1::1", "3fff::1", "100::1"),
    ],
)
def test_private_addresses_and_ranges_that_embed_one(address: str) -> None:
    assert not is_public(address)


def test_a_name_is_not_an_address() -> None:
    with pytest.raises(ValueError, match="example"):
        is_public("example.com")
