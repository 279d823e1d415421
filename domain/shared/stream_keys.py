"""Names of things in the store: stream ids and the keys that make every message count once."""

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
    """Return the stream of an organisation: a name-based UUID of the platform's own opaque id."""
    return uuid5(_NAMESPACE, organisation_id)


def payment_stream(payment_id: str) -> UUID:
    """Return the stream of a payment. Ids of organisations hold no NUL, so none of theirs is the same."""
    return uuid5(_NAMESPACE, f"payment\0{payment_id}")


def series_stream(name: str) -> UUID:
    """Return the stream of a series of documents, by the name that its numbers begin with."""
    return uuid5(_NAMESPACE, f"invoice-series\0{name}")


def quote_key(organisation_id: str, quote_id: str) -> bytes:
    """Return the key under which a quote's payment begins: a quote is paid for once."""
    return dedupe_key(f"quote\0{organisation_id}", quote_id)


def order_key(gateway: str, order_id: str) -> bytes:
    """Return the key of a gateway's order: it belongs to one payment."""
    return dedupe_key(f"order\0{gateway}", order_id)


def purchase_key(gateway: str, gateway_payment_id: str) -> bytes:
    """Return the key of the credits that a gateway's payment added: it adds them once."""
    return dedupe_key(f"payment\0{gateway}", gateway_payment_id)


def dedupe_key(source: str, message_id: str) -> bytes:
    """Return the 16-byte key of a message identity (CloudEvents `source` and `id`).

    A canonical UUID id keeps its first six bytes in front: for UUIDv7 these are the time, so new keys
    land side by side in the unique index. The rest, or all of it for any other id, is BLAKE2b of the
    whole identity. Neither part may contain NUL, which separates them.
    """
    if len(message_id) == _CANONICAL_UUID_LENGTH and message_id[8:24:5] == "----":
        try:
            time_prefix = unhexlify(message_id[:8] + message_id[9:13])
        except ValueError:  # not hexadecimal after all
            time_prefix = b""
    else:
        time_prefix = b""
    digest = _source_hash(source, KEY_BYTES - len(time_prefix)).copy()
    digest.update(message_id.encode())
    return time_prefix + digest.digest()


@lru_cache(maxsize=1_024)
def _source_hash(source: str, digest_bytes: int) -> blake2b:
    """Return the hash state after the source: a pipeline's workers are few, their messages many."""
    return blake2b(f"{source}\0".encode(), digest_size=digest_bytes)
