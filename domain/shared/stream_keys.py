"""Stream ids, and the dedupe keys that make every message count once."""

from __future__ import annotations

from binascii import unhexlify
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from uuid import UUID, uuid5

_NAMESPACE: Final = UUID("6f1c9b1e-6f0d-5b64-8a53-0c2d1d7f2c11")
_CANONICAL_UUID_LENGTH: Final = 36
KEY_BYTES: Final = 16


def stream_id(organisation_id: str) -> UUID:
    """Return the stream of an organisation: a name-based UUID of the platform's opaque id."""
    return uuid5(_NAMESPACE, organisation_id)


def payment_stream(payment_id: str) -> UUID:
    """Return the stream of a payment. Organisation ids contain no NUL, so no organisation has the same
    stream.
    """
    return uuid5(_NAMESPACE, f"payment\0{payment_id}")


def series_stream(name: str) -> UUID:
    """Return the stream of a document series, by the name that its numbers start with."""
    return uuid5(_NAMESPACE, f"invoice-series\0{name}")


def quote_key(organisation_id: str, quote_id: str) -> bytes:
    """Return the dedupe key of a quote's payment: a quote has at most one payment."""
    return dedupe_key(f"quote\0{organisation_id}", quote_id)


def order_key(gateway: str, order_id: str) -> bytes:
    """Return the dedupe key of a gateway's order: an order belongs to one payment."""
    return dedupe_key(f"order\0{gateway}", order_id)


def purchase_key(gateway: str, gateway_payment_id: str) -> bytes:
    """Return the dedupe key of a purchase: a gateway's payment adds its credits once."""
    return dedupe_key(f"payment\0{gateway}", gateway_payment_id)


def dedupe_key(source: str, message_id: str) -> bytes:
    """Return the 16-byte key of a message identity (CloudEvents `source` and `id`).

    For a canonical UUID, the key starts with the first six bytes of the id: in a UUIDv7 these are the time,
    so new keys are neighbours in the unique index. The other bytes, or all bytes for any other id, are
    BLAKE2b of the whole identity. Neither part may contain NUL, which separates them.
    """
    if len(message_id) == _CANONICAL_UUID_LENGTH and message_id[8:24:5] == "----":
        try:
            time_prefix = unhexlify(message_id[:8] + message_id[9:13])
        except ValueError:  # not hexadecimal
            time_prefix = b""
    else:
        time_prefix = b""
    digest = _source_hash(source, KEY_BYTES - len(time_prefix)).copy()
    digest.update(message_id.encode())
    return time_prefix + digest.digest()


@lru_cache(maxsize=1_024)
def _source_hash(source: str, digest_bytes: int) -> blake2b:
    """Return the hash state after the source. It is cached: there are few sources and many messages."""
    return blake2b(f"{source}\0".encode(), digest_size=digest_bytes)
