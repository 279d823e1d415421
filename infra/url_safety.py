"""Which URLs are safe to fetch keys from."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def is_safe(url: str) -> bool:
    """Tell whether keys may come from an address: over TLS, or from this machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )
