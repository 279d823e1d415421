"""Refunds without credits: of fees, custom payments, and unexpected attempts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.payments.errors import FlagNotOpen, PaymentNotRefundable, RefundExceedsRefundableFee
from domain.payments.events import AttemptRefundRequested, Flag, FlagKey, PaymentStatus
from domain.payments.gateway import AttemptStatus
from domain.payments.payment import Payment
from domain.payments.payment_state import RefundState
from domain.payments.terms import PaymentTerms
from domain.shared.errors import InvalidInput, InvariantViolation
from tests.unit.credits.builders import request
from tests.unit.payments.payment_builders import CUSTOM, PRO, attempt, completed, happened, ordered

PAID_TWICE = FlagKey(Flag.PAID_TWICE, "pay_2", 177_000)


def give_back(payment: Payment, amount_minor: int, refund_id: str = "refund-1") -> int:
    """Refund a part of the fee, and return its tax."""
    requested_refund = payment.request_fee_refund(refund_id, amount_minor, request())
    payment.record_refund(refund_id, f"rfnd-{refund_id}", request())
    return requested_refund.tax_minor


def twice() -> Payment:
    """A payment with two captured attempts."""
    payment = completed()
    payment.record_attempt(attempt(gateway_payment_id="pay_2"), request())
    payment.collect_events()
    return payment


class TestFees:
    @given(st.lists(st.integers(1, 60_000), max_size=20), st.sampled_from([PRO, CUSTOM]))
    def test_partial_refunds_are_exactly_the_whole(self, parts: list[int], terms: PaymentTerms) -> None:
        payment = completed(terms, purchase=None if terms is CUSTOM else 3)
        paid = payment.fee
        tax_minor = sum(give_back(payment, part, f"refund-{number}") for number, part in enumerate(parts))
        left_minor = payment.refundable_fee_minor
        assert left_minor == paid.amount_minor - sum(parts)
        if left_minor:
            tax_minor += give_back(payment, left_minor, "the-rest")
        assert tax_minor == paid.tax_minor
        payment.check_invariants()
        with pytest.raises(RefundExceedsRefundableFee):
            payment.request_fee_refund("more", 1, request())

    def test_the_fee_of_pro_and_its_credits_are_refunded_separately(self) -> None:
        payment = completed(PRO)
        assert (payment.fee.amount_minor, payment.fee.tax_minor) == (1_000_000, 180_000)
        assert give_back(payment, 1_000_000) == 180_000
        requested_refund = payment.request_refund("refund-2", 1_000, request())
        assert (requested_refund.amount_minor, requested_refund.tax_minor) == (150_000, 27_000)
        payment.check_invariants()
        assert payment.status is PaymentStatus.REFUNDED

    def test_a_refused_refund_can_be_repeated_and_tax_is_never_negative(self) -> None:
        payment = completed(CUSTOM, purchase=None)
        payment.request_fee_refund("a", 5, request())
        payment.request_fee_refund("b", 1, request())
        payment.record_refund_failure("a", "no", request())
        assert payment.refundable_fee_minor == 499_999
        assert [give_back(payment, 1, "c"), give_back(payment, 499_998, "d")] == [0, 89_999]
        payment.check_invariants()

    def test_a_repeated_refusal_is_one_flag(self) -> None:
        payment = completed(CUSTOM, purchase=None)
        for refund_id in ("a", "b"):
            payment.request_fee_refund(refund_id, 100_000, request())
            payment.record_refund_failure(refund_id, "no", request())
        assert [key.flag for key in payment.open_flags] == [Flag.REFUND_REFUSED]

    def test_a_payment_for_credits_only_has_no_refundable_fee(self) -> None:
        with pytest.raises(PaymentNotRefundable):
            completed().request_fee_refund("refund-1", 1, request())
        with pytest.raises(PaymentNotRefundable):
            ordered(CUSTOM).request_fee_refund("refund-1", 1, request())
        with pytest.raises(InvalidInput):
            completed(CUSTOM, purchase=None).request_fee_refund("refund-1", 0, request())

    def test_a_payment_with_credits_recorded_by_staff_is_fully_refundable(self) -> None:
        payment = completed(purchase=None)
        payment.flag(Flag.CREDITS_RECORDED_BEFORE, attempt(), request())
        give_back(payment, 100_000)
        assert payment.open_flags, "a part is unrefunded"
        give_back(payment, 50_000, "refund-2")
        assert not payment.open_flags

    def test_the_fee_of_a_second_subscription_settles_its_flag(self) -> None:
        payment = completed(PRO)
        payment.flag(Flag.ALREADY_PRO, attempt(), request())
        payment.request_fee_refund("refund-1", 400_000, request())
        payment.request_fee_refund("refund-2", 600_000, request())
        payment.record_refund("refund-2", "rfnd-2", request())
        assert payment.open_flags, "a part is pending"
        payment.record_refund("refund-1", "rfnd-1", request())
        assert not payment.open_flags

    def test_invariants_check_the_fee(self) -> None:
        payment = completed(PRO)
        give_back(payment, 1_000_000)
        payment.terms = msgspec.structs.replace(payment.terms, credits_minor=1_150_000, fee_minor=0)
        with pytest.raises(InvariantViolation, match="fee"):
            payment.check_invariants()


class TestUnexpectedPayments:
    @pytest.mark.parametrize("currency", ["INR", "EUR"])
    def test_a_refund_of_an_attempt_settles_its_flag(self, currency: str) -> None:
        payment = ordered()
        odd = attempt(amount_minor=999, currency=currency)
        assert not payment.record_attempt(odd, request())
        requested_refund = payment.request_attempt_refund("refund-1", "pay_1", request())
        assert (
            payment.gateway_payment_id_of(requested_refund),
            requested_refund.total_minor,
            payment.currency_of(requested_refund),
        ) == (
            "pay_1",
            999,
            currency,
        )
        assert payment.open_refunds == [requested_refund]
        payment.record_refund("refund-1", "rfnd-1", request())
        payment.record_refund("refund-1", "rfnd-1", request())
        assert payment.open_refunds == []
        assert not payment.open_flags
        assert payment.status is PaymentStatus.FAILED
        assert happened(payment)[-3:] == ["AttemptRefundRequested", "AttemptRefunded", "FlagSettled"]

    def test_a_later_message_about_it_changes_nothing(self) -> None:
        payment = twice()
        payment.request_attempt_refund("refund-1", "pay_2", request())
        payment.record_refund("refund-1", "rfnd-1", request())
        payment.collect_events()
        back = attempt(gateway_payment_id="pay_2", refunded_minor=177_000)
        assert not payment.record_attempt(back, request())
        assert happened(payment) == []

    def test_a_refunded_attempt_never_pays(self) -> None:
        payment = ordered()
        payment.record_attempt(attempt(amount_minor=1), request())
        payment.request_attempt_refund("refund-1", "pay_1", request())
        assert not payment.record_attempt(attempt(), request())
        payment.record_refund_failure("refund-1", "no", request())
        assert payment.record_attempt(attempt(), request())

    @pytest.mark.parametrize("gateway_payment_id", ["pay_1", "pay_3"])
    def test_only_flagged_attempts_can_be_refunded(self, gateway_payment_id: str) -> None:
        with pytest.raises(PaymentNotRefundable):
            twice().request_attempt_refund("refund-1", gateway_payment_id, request())

    def test_it_is_refunded_once(self) -> None:
        payment = twice()
        payment.request_attempt_refund("refund-1", "pay_2", request())
        with pytest.raises(PaymentNotRefundable):
            payment.request_attempt_refund("refund-2", "pay_2", request())

    def test_a_refusal_is_flagged_and_a_later_refund_settles_all_flags(self) -> None:
        payment = twice()
        payment.request_attempt_refund("refund-1", "pay_2", request())
        assert payment.record_refund_failure("refund-1", "no", request())
        assert not payment.record_refund_failure("refund-1", "no", request())
        refused = FlagKey(Flag.REFUND_REFUSED, "pay_2", 177_000)
        assert payment.open_flags == {PAID_TWICE, refused}
        payment.settle_flag(refused, request())
        payment.request_attempt_refund("refund-2", "pay_2", request())
        payment.record_refund_failure("refund-2", "no", request())
        assert refused in payment.open_flags, "refused again: it must be reviewed again"
        payment.request_attempt_refund("refund-3", "pay_2", request())
        payment.record_refund("refund-3", "rfnd-3", request())
        assert not payment.open_flags
        payment.check_invariants()

    def test_invariants_check_the_refunds(self) -> None:
        payment = twice()
        requested_refund = payment.request_attempt_refund("refund-1", "pay_2", request())
        payment.refunds["refund-2"] = RefundState(requested_refund)
        with pytest.raises(InvariantViolation, match="twice"):
            payment.check_invariants()


class TestFlags:
    def test_a_repeated_message_does_not_reopen_a_settled_flag(self) -> None:
        payment = twice()
        payment.settle_flag(PAID_TWICE, request())
        assert not payment.open_flags
        payment.record_attempt(attempt(gateway_payment_id="pay_2"), request())
        assert happened(payment) == ["FlagSettled"]
        with pytest.raises(FlagNotOpen):
            payment.settle_flag(PAID_TWICE, request())
        with pytest.raises(PaymentNotRefundable):
            payment.request_attempt_refund("refund-1", "pay_2", request())

    def test_a_flag_with_a_pending_refund_is_settled_by_it(self) -> None:
        payment = twice()
        payment.request_attempt_refund("refund-1", "pay_2", request())
        with pytest.raises(FlagNotOpen):
            payment.settle_flag(PAID_TWICE, request())

    def test_a_flag_of_a_refusal_is_settled_by_the_same_refund(self) -> None:
        payment = completed(CUSTOM, purchase=None)
        payment.request_fee_refund("refund-1", 1_000, request())
        payment.record_refund_failure("refund-1", "no", request())
        give_back(payment, 500, "refund-2")
        assert payment.open_flags
        give_back(payment, 1_000, "refund-3")
        assert not payment.open_flags

    def test_a_refund_does_not_settle_flags_of_other_attempts(self) -> None:
        payment = completed(CUSTOM, purchase=None)
        other = attempt(AttemptStatus.CAPTURED, gateway_payment_id="pay_2", amount_minor=590_000)
        payment.record_attempt(other, request())
        give_back(payment, 500_000)
        assert payment.open_flags == {FlagKey(Flag.PAID_TWICE, "pay_2", 590_000)}
        assert isinstance(
            payment.request_attempt_refund("refund-2", "pay_2", request()), AttemptRefundRequested
        )
