"""Signatures against independent vectors: from the tests of Razorpay's client, and from openssl."""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import RSAKey

from domain.payments.gateway import (
    Attempt,
    AttemptStatus,
    GatewayNotification,
    InvalidWebhookSignature,
)
from infra.payments.gateways.payglocal_tokens import (
    InvalidKey,
    InvalidToken,
    PayGlocalTokens,
    read_key,
    verify_token,
)
from infra.payments.gateways.razorpay import RazorpayGateway

RETURNED = {"razorpay_order_id": "fake_order_id", "razorpay_payment_id": "fake_payment_id"}
RETURN_SIGNATURE = "b2335e3b0801106b84a7faff035df56ecffde06918c9ddd1f0fafbb37a51cc89"
"""From the tests of Razorpay's Python client, for the key secret `key_secret`."""
BODY = (
    b'{"event":"payment.captured","payload":{"payment":{"entity":{"id":"pay_1","status":"captured",'
    b'"amount":177000,"currency":"INR","order_id":"order_1","captured":true}}}}'
)
BODY_SIGNATURE = "b5f4265c6d5cd6f815f047c14384339706a470967f2a1c7c2374487f9ff375ad"
"""`openssl dgst -sha256 -hmac webhook-secret`."""


@pytest.fixture
def razorpay() -> RazorpayGateway:
    """An adapter with the vectors' secrets, without a gateway."""
    return RazorpayGateway(
        "key_id",
        "key_secret",
        "webhook-secret",
        currencies=frozenset({"INR"}),
        merchant_name="Shop",
        clock=lambda: datetime(2026, 11, 22, tzinfo=UTC),
        url="http://127.0.0.1:9",
    )


def test_a_return_signed_by_razorpay_is_accepted(razorpay: RazorpayGateway) -> None:
    claimed = razorpay._returned_ids({**RETURNED, "razorpay_signature": RETURN_SIGNATURE})
    assert claimed == ("fake_order_id", "fake_payment_id")


@pytest.mark.parametrize("signature", ["", RETURN_SIGNATURE[:-1] + "8", RETURN_SIGNATURE.upper(), "é"])
def test_a_return_with_a_wrong_signature_is_refused(razorpay: RazorpayGateway, signature: str) -> None:
    with pytest.raises(InvalidWebhookSignature):
        razorpay.verify_return({**RETURNED, "razorpay_signature": signature})


def test_a_webhook_is_verified_on_its_raw_bytes(razorpay: RazorpayGateway) -> None:
    headers = {"x-razorpay-signature": BODY_SIGNATURE, "x-razorpay-event-id": "evt_1"}
    attempt = Attempt("pay_1", "order_1", AttemptStatus.CAPTURED, 177_000, "INR")
    assert razorpay.verify_webhook(BODY, headers) == GatewayNotification("evt_1", "payment.captured", attempt)


def test_the_same_json_in_other_bytes_is_refused(razorpay: RazorpayGateway) -> None:
    again = msgspec.json.format(BODY, indent=1)
    assert msgspec.json.decode(again) == msgspec.json.decode(BODY)
    with pytest.raises(InvalidWebhookSignature):
        razorpay.verify_webhook(again, {"x-razorpay-signature": BODY_SIGNATURE})


@pytest.mark.parametrize(
    "headers", [{}, {"x-razorpay-signature": "é"}, {"X-Razorpay-Signature": BODY_SIGNATURE}]
)
def test_a_webhook_without_its_signature_is_refused(
    razorpay: RazorpayGateway, headers: dict[str, str]
) -> None:
    with pytest.raises(InvalidWebhookSignature):
        razorpay.verify_webhook(BODY, headers)


@pytest.fixture(scope="module")
def our_key() -> RSAKey:
    return RSAKey.generate_key(2_048)


@pytest.fixture(scope="module")
def their_key() -> RSAKey:
    return RSAKey.generate_key(2_048)


def header_of(token: str) -> dict[str, object]:
    """Return the protected header of a compact token."""
    part = token.partition(".")[0]
    return msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=dict[str, object])


def test_requests_carry_the_headers_of_payglocals_own_clients(our_key: RSAKey, their_key: RSAKey) -> None:
    tokens = PayGlocalTokens("merchant-1", our_key, "kid-1", their_key, "kid-2")
    body = tokens.encrypt({"merchantTxnId": "p-1"}, 1_700_000_000_000)
    assert header_of(body) == {
        "alg": "RSA-OAEP-256",
        "enc": "A128CBC-HS256",
        "kid": "kid-2",
        "issued-by": "merchant-1",
        "is-digested": "true",
        "iat": "1700000000000",
        "exp": 300_000,
    }
    headers = tokens.sign(body, 1_700_000_000_000)
    token = headers.pop("x-gl-token-external")
    assert headers == {"x-gl-merchantid": "merchant-1", "x-gl-kid": "kid-1"}
    assert header_of(token) == {
        "alg": "RS256",
        "kid": "kid-1",
        "x-gl-merchantId": "merchant-1",
        "issued-by": "merchant-1",
        "is-digested": "true",
        "x-gl-enc": "true",
    }
    claims = verify_token(token, our_key)
    assert b64decode(claims.pop("digest")) == sha256(body.encode()).digest()
    assert claims == {"digestAlgorithm": "SHA-256", "exp": 300_000, "iat": "1700000000000"}


def test_a_token_of_another_key_or_algorithm_is_refused(our_key: RSAKey, their_key: RSAKey) -> None:
    tokens = PayGlocalTokens("merchant-1", our_key, "kid-1", their_key, "kid-2")
    payload = b'{"gid":"gl_1","status":"SENT_FOR_CAPTURE"}'
    genuine = jws.serialize_compact({"alg": "RS256"}, payload, their_key)
    assert tokens.verify(genuine)["gid"] == "gl_1"
    claims = genuine.split(".")[1]
    signing_input = f"eyJhbGciOiJIUzI1NiJ9.{claims}"
    digest = hmac.digest(their_key.as_pem(private=False), signing_input.encode(), "sha256")
    public_as_secret = f"{signing_input}.{urlsafe_b64encode(digest).decode().rstrip('=')}"
    for forged in (
        jws.serialize_compact({"alg": "RS256"}, payload, our_key),
        public_as_secret,
        jws.serialize_compact({"alg": "RS256"}, b"[]", their_key),
        f"eyJhbGciOiJub25lIn0.{claims}.",
        genuine + "A",
        "",
    ):
        with pytest.raises(InvalidToken):
            tokens.verify(forged)


def test_an_invalid_key_is_named_without_its_contents(tmp_path: Path) -> None:
    with pytest.raises(InvalidKey, match="cannot be read"):
        read_key(tmp_path / "missing.pem")
    broken = tmp_path / "broken.pem"
    broken.write_text("secret contents")
    with pytest.raises(InvalidKey) as wrong:
        read_key(broken)
    assert "secret contents" not in str(wrong.value)
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    broken.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert read_key(broken).is_private, "the older PEM format is accepted too"
