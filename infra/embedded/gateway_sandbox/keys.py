"""The sandbox's secrets.

They are created at the first start, in a folder that only the current user can read.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from infra.embedded.files import exclusive, is_free, pick_free_port, read_number, write_atomically

FOLDER: Final = "sandbox-gateway"
_KEYS: Final = "keys.json"
_PORT: Final = "port"
_RSA_BITS: Final = 2_048
_LOCK_TIMEOUT_S: Final = 10.0


class SandboxKeys(msgspec.Struct, frozen=True):
    """The keys and ids shared by the sandbox and its only merchant."""

    razorpay_key_id: str
    razorpay_key_secret: str
    razorpay_webhook_secret: str
    payglocal_merchant_id: str
    payglocal_private_key_id: str
    payglocal_public_key_id: str


class KeyFolder:
    """The folder with the keys in a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir / FOLDER
        self.merchant_private = self.root / "merchant-private.pem"
        self.merchant_public = self.root / "merchant-public.pem"
        self.payglocal_private = self.root / "payglocal-private.pem"
        self.payglocal_public = self.root / "payglocal-public.pem"

    def keys(self) -> SandboxKeys:
        """Return the keys. Create them if they are missing.

        Raises:
            EmbeddedServerError: another process holds the lock of the keys for too long.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with exclusive(self.root / "keys.lock", timeout_seconds=_LOCK_TIMEOUT_S):
            path = self.root / _KEYS
            if not path.exists():
                self._create(path)
            return msgspec.json.decode(path.read_bytes(), type=SandboxKeys)

    def port(self) -> int:
        """Return the sandbox's port: the last one if it is free, otherwise a new one.

        Raises:
            EmbeddedServerError: no port is free.
        """
        path = self.root / _PORT
        port = read_number(path)
        if port is None or not is_free(port):
            port = pick_free_port()
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, str(port))
        return port

    def settings(self, url: str) -> dict[str, str]:
        """Return the settings that connect the production adapters to the sandbox at a URL."""
        keys = self.keys()
        return {
            "RAZORPAY_URL": url,
            "RAZORPAY_KEY_ID": keys.razorpay_key_id,
            "RAZORPAY_KEY_SECRET": keys.razorpay_key_secret,
            "RAZORPAY_WEBHOOK_SECRET": keys.razorpay_webhook_secret,
            "PAYGLOCAL_URL": url,
            "PAYGLOCAL_MERCHANT_ID": keys.payglocal_merchant_id,
            "PAYGLOCAL_PRIVATE_KEY": str(self.merchant_private),
            "PAYGLOCAL_PRIVATE_KEY_ID": keys.payglocal_private_key_id,
            "PAYGLOCAL_PUBLIC_KEY": str(self.payglocal_public),
            "PAYGLOCAL_PUBLIC_KEY_ID": keys.payglocal_public_key_id,
        }

    def _create(self, path: Path) -> None:
        for private, public in (
            (self.merchant_private, self.merchant_public),
            (self.payglocal_private, self.payglocal_public),
        ):
            key = rsa.generate_private_key(public_exponent=65_537, key_size=_RSA_BITS)
            write_atomically(
                private,
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            )
            subject = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            write_atomically(public, subject.decode())
        keys = SandboxKeys(
            razorpay_key_id=f"rzp_test_{secrets.token_hex(7)}",
            razorpay_key_secret=secrets.token_urlsafe(18),
            razorpay_webhook_secret=secrets.token_urlsafe(18),
            payglocal_merchant_id="sandboxmerchant",
            payglocal_private_key_id=f"kid-{secrets.token_hex(8)}",
            payglocal_public_key_id=f"kid-{secrets.token_hex(8)}",
        )
        # Written last: if this file exists, the other files exist too.
        write_atomically(path, msgspec.json.encode(keys).decode())
