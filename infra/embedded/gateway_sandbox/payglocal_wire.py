"""PayGlocal's side of its tokens, and the sandbox's state in PayGlocal's wire format."""

from __future__ import annotations

import hmac
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import msgspec
from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from infra.embedded.gateway_sandbox.keys import KeyFolder
from infra.embedded.gateway_sandbox.state import (
    AUTHORIZED,
    CANCELLED,
    CAPTURED,
    FAILED,
    PENDING,
    Order,
    Payment,
    SandboxState,
)
from infra.payments.gateways.payglocal_tokens import JWE, JWS, InvalidToken, read_key, verify_token

GATEWAY: Final = "payglocal"
_STATUSES: Final = {
    PENDING: "INPROGRESS",
    AUTHORIZED: "AUTHORIZED",
    CAPTURED: "SENT_FOR_CAPTURE",
    FAILED: "ISSUER_DECLINE",
    CANCELLED: "CUSTOMER_CANCELLED",
}


class PayGlocalTokenCodec:
    """Decrypts and signs with PayGlocal's keys, and verifies the merchant's signatures."""

    def __init__(self, folder: KeyFolder) -> None:
        keys = folder.keys()
        self.merchant_id = keys.payglocal_merchant_id
        self._key_id = keys.payglocal_public_key_id
        self._private_key = read_key(folder.payglocal_private)
        self._merchant_key: RSAKey = read_key(folder.merchant_public)

    def decrypt(self, body: str) -> dict[str, Any]:
        """Return the content of a merchant's encrypted body.

        Raises:
            InvalidToken: it is not encrypted for PayGlocal.
        """
        try:
            plain = jwe.decrypt_compact(body, self._private_key, registry=JWE).plaintext
            return msgspec.json.decode(plain or b"", type=dict[str, Any])
        except (JoseError, ValueError, msgspec.MsgspecError) as error:
            raise InvalidToken(type(error).__name__) from None

    def is_signed(self, token: str, content: str) -> bool:
        """Return whether the merchant signed this body or path."""
        try:
            claims = verify_token(token, self._merchant_key)
        except InvalidToken:
            return False
        digest = b64encode(sha256(content.encode()).digest()).decode()
        return hmac.compare_digest(str(claims.get("digest")), digest)

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a token signed by PayGlocal."""
        header = {"alg": "RS256", "kid": self._key_id, "issued-by": "GLOCAL", "is-digested": "false"}
        return jws.serialize_compact(header, msgspec.json.encode(claims), self._private_key, registry=JWS)

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a token signed by PayGlocal.

        Raises:
            InvalidToken: PayGlocal did not sign it.
        """
        return verify_token(token, self._private_key)

    def return_token(self, order: Order, payment: Payment) -> str:
        """Return the token for the browser's return to the merchant."""
        return self.sign(
            {
                "status": _STATUSES[payment.status],
                "gid": order.id,
                "merchantTxnId": order.receipt,
                "merchantUniqueId": order.receipt,
                "amount": decimal(payment.amount_minor),
                "currency": payment.currency,
                "iat": payment.created_at,
            }
        )


def transaction(state: SandboxState, order: Order) -> dict[str, Any]:
    """Return a transaction in the format of the status API."""
    payments = state.payments_of(order.id)
    status = _STATUSES[payments[-1].status] if payments else "CREATED"
    paid = payments[-1] if payments else order
    return envelope(
        status,
        "Get Status Successful",
        order.id,
        {
            "gid": order.id,
            "merchantTxnId": order.receipt,
            "merchantUniqueId": order.receipt,
            "status": status,
            "paymentMethod": "CARD",
            "totalAmount": decimal(paid.amount_minor),
            "txnCurrency": paid.currency,
        },
    )


def envelope(status: str, message: str, gid: str, data: dict[str, Any] | None) -> dict[str, Any]:
    """Return a response in the common format of PayGlocal's API."""
    return {
        "gid": gid,
        "status": status,
        "message": message,
        "timestamp": datetime.now(UTC).strftime("%d/%m/%Y %H:%M:%S"),
        "reasonCode": "GL-201-001",
        "data": data,
        "errors": None,
    }


def decimal(amount_minor: int) -> str:
    """Return an amount in PayGlocal's format, such as `17.70`."""
    return f"{amount_minor // 100}.{amount_minor % 100:02}"
