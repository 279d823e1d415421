"""The URL policy: deliveries go only to addresses of the public internet.

A user who adds an endpoint chooses a URL that our machines will call. Without these rules, the user could
reach our private network, services on loopback, and the metadata service of a cloud.
https://owasp.org/www-community/attacks/Server_Side_Request_Forgery
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

import msgspec

from domain.shared.errors import InvalidInput

URL_LENGTH_MAX: Final = 2_048
_PRINTABLE: Final = re.compile(r"[!-~]+", re.ASCII)
_HOST: Final = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]+", re.ASCII)
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_FIRST_FREE_PORT: Final = 1_024

# https://www.iana.org/assignments/iana-ipv4-special-registry/
_NOT_PUBLIC_V4: Final = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",  # Azure's own services, reachable from every machine there
        ),
    )
)
# In IPv6, only global unicast is public. Ranges that map, translate or tunnel IPv4 are outside it or listed.
# https://www.iana.org/assignments/iana-ipv6-special-registry/
_GLOBAL_UNICAST_V6: Final = ip_network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))


class WebhookTarget(msgspec.Struct, frozen=True):
    """A URL that passed all checks that need no DNS look-up."""

    host: str
    port: int
    path: str
    is_tls: bool

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = _DEFAULT_PORTS["https" if self.is_tls else "http"]
        return host if self.port == usual else f"{host}:{self.port}"


def check_url(url: str, *, allow_private: bool) -> WebhookTarget:
    """Return the target of a URL. It must use TLS and port 443 or from 1024 on, without a user or a fragment.

    If private addresses are allowed, for local use, plain HTTP is allowed too.

    Raises:
        InvalidInput: the URL is not allowed; the message says why, and quotes no part of it.
    """
    if len(url) > URL_LENGTH_MAX or not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise _wrong(f"an address has at most {URL_LENGTH_MAX:,} printable ASCII characters, and no space")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise _wrong("this is no address such as https://example.com/credits") from None
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise _wrong("an https address is needed, such as https://example.com/credits")
    if not _HOST.fullmatch(host):
        raise _wrong("the address names no host")
    if "@" in parts.netloc or "#" in url:
        raise _wrong("an address has no user, password or fragment here")
    if port is None:
        port = _DEFAULT_PORTS[parts.scheme]
    if port != _DEFAULT_PORTS[parts.scheme] and port < _FIRST_FREE_PORT:
        raise _wrong(f"the port is the usual one, or from {_FIRST_FREE_PORT:,} on")
    if not allow_private and not (_is_public_or_a_name(host)):
        raise _wrong("the address is not of the public internet")
    path = parts.path or "/"
    return WebhookTarget(
        host, port, f"{path}?{parts.query}" if parts.query else path, parts.scheme == "https"
    )


def is_public(address: str) -> bool:
    """Return whether an IP address is globally unique and reachable on the public internet.

    Raises:
        ValueError: the text is not an IP address.
    """
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _NOT_PUBLIC_V4)
    return _is_public_v6(parsed)


def _is_public_v6(address: IPv6Address) -> bool:
    return address in _GLOBAL_UNICAST_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def _is_public_or_a_name(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:
        return True


def _wrong(sentence: str) -> InvalidInput:
    return InvalidInput("url", sentence)
