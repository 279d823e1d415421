"""Conversion of gateway messages: every status, and invalid responses, which must never count as a failed
payment.
"""

from __future__ import annotations

import pytest

from domain.payments.gateway import AttemptStatus, GatewayUnavailable, RefundStatus
from infra.payments.gateways import razorpay_entities as entities
from infra.payments.gateways.payglocal import _attempt, _minor, _read_response, _refund_status

PAYMENT = {"id": "pay_1", "amount": 100, "currency": "INR", "order_id": "order_1"}


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"status": "created"}, AttemptStatus.PENDING),
        ({"status": "authorized"}, AttemptStatus.PENDING),
        ({"status": "captured"}, AttemptStatus.CAPTURED),
        ({"status": "refunded", "captured": True, "amount_refunded": 100}, AttemptStatus.CAPTURED),
        ({"status": "refunded", "captured": False, "amount_refunded": 100}, AttemptStatus.FAILED),
        ({"status": "failed", "error_reason": "payment_failed"}, AttemptStatus.FAILED),
        ({"status": "failed", "error_reason": "payment_cancelled"}, AttemptStatus.CANCELLED),
        ({"status": "something_new"}, AttemptStatus.PENDING),
    ],
)
def test_a_payment_of_razorpay(given: dict[str, object], status: AttemptStatus) -> None:
    assert entities.parse({**PAYMENT, **given}, entities.Payment).attempt().status is status


@pytest.mark.parametrize("wrong", [{"amount": "100"}, {"amount": 1.5}, {"id": None}, {"currency": 7}])
def test_a_response_of_another_shape_is_invalid(wrong: dict[str, object]) -> None:
    with pytest.raises(GatewayUnavailable):
        entities.parse({**PAYMENT, "status": "captured", **wrong}, entities.Payment)


def test_settlements_other_than_payments_and_refunds_are_skipped() -> None:
    item = {"entity_id": "adj_1", "amount": 5, "currency": "INR", "created_at": 1_700_000_000}
    for kind in ("adjustment", "transfer", "refund"):  # a refund without a payment is not ours
        assert entities.parse({**item, "type": kind}, entities.SettledEntity).line() is None


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("INPROGRESS", AttemptStatus.PENDING),
        ("AUTHORIZED", AttemptStatus.PENDING),
        ("SENT_FOR_CAPTURE", AttemptStatus.CAPTURED),
        ("CUSTOMER_CANCELLED", AttemptStatus.CANCELLED),
        ("ABANDONED", AttemptStatus.CANCELLED),
        ("ISSUER_DECLINE", AttemptStatus.FAILED),
        ("GENERIC_DECLINE", AttemptStatus.FAILED),
        ("SYSTEM_ERROR", AttemptStatus.FAILED),
        ("SOMETHING_NEW", AttemptStatus.PENDING),
    ],
)
def test_a_transaction_of_payglocal(given: str, status: AttemptStatus) -> None:
    answer = _read_response(
        b'{"gid":"gl_1","status":"%s","data":{"totalAmount":"17.70","txnCurrency":"USD"}}' % given.encode()
    )
    attempt = _attempt("gl_1", answer)
    assert (attempt.status, attempt.amount_minor, attempt.currency) == (status, 1_770, "USD")


def test_payglocals_older_field_names_are_read() -> None:
    answer = _read_response(b'{"gid":"gl_1","status":"X","data":{"Amount":"3999.50","Currency":"USD"}}')
    assert (_attempt("gl_1", answer).amount_minor, _attempt("gl_1", answer).currency) == (399_950, "USD")


@pytest.mark.parametrize(
    ("given", "minor"), [("48", 4_800), ("48.5", 4_850), (48, 4_800), ("0.07", 7), (1.1, 110)]
)
def test_amounts_are_read_exactly(given: str | float, minor: int) -> None:
    assert _minor(given) == minor


@pytest.mark.parametrize("given", [None, "", "1.005", "NaN", "Infinity", "1e400", "twelve"])
def test_an_invalid_amount_is_an_invalid_response(given: str | None) -> None:
    with pytest.raises(GatewayUnavailable):
        _minor(given)


def test_refunds_of_payglocal() -> None:
    assert _refund_status("SENT_FOR_REFUND") is RefundStatus.DONE
    assert _refund_status("SUCCESS") is RefundStatus.DONE
    assert _refund_status("SYSTEM_ERROR") is RefundStatus.FAILED
    assert _refund_status("INPROGRESS") is RefundStatus.PENDING
