"""The Payment aggregate: its decision for each gateway message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from domain.credits.errors import RefundExceedsPurchase
from domain.payments.errors import PaymentClosed, PaymentNotRefundable
from domain.payments.events import Flag, FlagKey, PaymentFlagged, PaymentStatus
from domain.payments.gateway import AttemptStatus
from domain.payments.payment import CANCELLED_BY_CUSTOMER, Payment, evolve
from domain.payments.payment_state import RefundState
from domain.payments.terms import PaymentTerms
from domain.shared.errors import InvalidInput, InvariantViolation
from tests.unit.credits.builders import request
from tests.unit.payments.payment_builders import (
    CREDITS,
    CUSTOM,
    PRO,
    attempt,
    completed,
    happened,
    ordered,
    requested,
)

FAILED, PENDING, GAVE_UP = AttemptStatus.FAILED, AttemptStatus.PENDING, AttemptStatus.CANCELLED


class TestPaymentFlow:
    def test_a_payment_starts_with_its_terms(self) -> None:
        payment = requested()
        assert payment.status is PaymentStatus.CREATED
        assert payment.terms.total_minor == 177_000
        assert happened(payment) == ["Requested"]

    @pytest.mark.parametrize("fee_minor", [0, 10**12 + 1])
    def test_the_amount_has_a_minimum_and_a_maximum(self, fee_minor: int) -> None:
        terms = msgspec.structs.replace(CUSTOM, fee_minor=fee_minor, tax_minor=0)
        with pytest.raises(InvalidInput) as refusal:
            requested(terms)
        assert refusal.value.field == "amount_minor"

    def test_an_order_makes_it_pending_once(self) -> None:
        payment = ordered()
        payment.record_order("order_1", request())
        assert payment.status is PaymentStatus.PENDING
        assert payment.order_id == "order_1"
        assert happened(payment) == ["Requested", "Ordered"]

    def test_a_captured_attempt_completes_it(self) -> None:
        payment = ordered()
        assert payment.record_attempt(attempt(), request())
        payment.complete("pay_1", 3, request())
        assert payment.status is PaymentStatus.COMPLETED
        assert payment.purchase == 3

    def test_a_repeated_message_changes_nothing(self) -> None:
        payment = completed()
        payment.collect_events()
        assert not payment.record_attempt(attempt(), request())
        assert happened(payment) == []

    def test_it_is_paid_once(self) -> None:
        with pytest.raises(InvariantViolation):
            completed().complete("pay_1", 3, request())

    def test_a_pending_attempt_changes_nothing(self) -> None:
        payment = ordered()
        payment.collect_events()
        assert not payment.record_attempt(attempt(PENDING), request())
        assert happened(payment) == []


class TestEndings:
    def test_a_refused_attempt_fails_it_with_the_gateways_reason(self) -> None:
        payment = ordered()
        payment.record_attempt(attempt(FAILED, reason="BAD_REQUEST_ERROR"), request())
        assert payment.status is PaymentStatus.FAILED
        assert payment.collect_events()[-1].event.reason == "BAD_REQUEST_ERROR"  # type: ignore[attr-defined]

    def test_a_refused_attempt_without_a_reason_fails_it_too(self) -> None:
        payment = ordered()
        payment.record_attempt(attempt(FAILED), request())
        assert payment.collect_events()[-1].event.reason == "failed"  # type: ignore[attr-defined]

    def test_a_payer_abandons_it(self) -> None:
        payment = ordered()
        payment.record_attempt(attempt(GAVE_UP), request())
        assert payment.status is PaymentStatus.ABANDONED
        assert payment.collect_events()[-1].event.reason == CANCELLED_BY_CUSTOMER  # type: ignore[attr-defined]

    def test_an_order_that_could_not_be_made_fails_it(self) -> None:
        payment = requested()
        payment.fail("order_refused", request())
        assert payment.status is PaymentStatus.FAILED
        payment.record_order("order_1", request())
        assert payment.order_id is None

    def test_abandoning_twice_is_one_event(self) -> None:
        payment = ordered()
        payment.abandon(CANCELLED_BY_CUSTOMER, request())
        payment.abandon(CANCELLED_BY_CUSTOMER, request())
        assert happened(payment) == ["Requested", "Ordered", "Abandoned"]

    def test_a_completed_or_failed_payment_cannot_be_abandoned(self) -> None:
        failed = ordered()
        failed.fail("x", request())
        for payment in (completed(), failed):
            with pytest.raises(PaymentClosed):
                payment.abandon(CANCELLED_BY_CUSTOMER, request())

    @pytest.mark.parametrize("ending", [FAILED, GAVE_UP])
    def test_a_late_capture_completes_an_ended_payment(self, ending: AttemptStatus) -> None:
        payment = ordered()
        payment.record_attempt(attempt(ending, gateway_payment_id="pay_0"), request())
        assert payment.record_attempt(attempt(), request())

    @pytest.mark.parametrize("ending", [FAILED, GAVE_UP])
    def test_a_late_failed_attempt_does_not_change_a_paid_payment(self, ending: AttemptStatus) -> None:
        payment = completed()
        payment.collect_events()
        assert not payment.record_attempt(attempt(ending, gateway_payment_id="pay_0"), request())
        assert happened(payment) == []


class TestFlags:
    @pytest.mark.parametrize("odd", [{"amount_minor": 1}, {"currency": "USD"}])
    def test_another_amount_or_currency_fails_and_is_flagged_once(self, odd: dict[str, Any]) -> None:
        payment = ordered()
        payment.collect_events()
        for _ in range(2):
            assert not payment.record_attempt(attempt(**odd), request())
        assert happened(payment) == ["Flagged", "Failed"]
        assert {flag for flag, _, _ in payment.flags} == {Flag.AMOUNT_DIFFERS}

    def test_the_right_amount_after_a_wrong_one_still_completes(self) -> None:
        payment = ordered()
        payment.record_attempt(attempt(gateway_payment_id="pay_0", amount_minor=1), request())
        assert payment.record_attempt(attempt(), request())

    def test_a_second_captured_attempt_is_flagged_once(self) -> None:
        payment = completed()
        payment.collect_events()
        for _ in range(2):
            assert not payment.record_attempt(attempt(gateway_payment_id="pay_2"), request())
        (flagged,) = payment.collect_events()
        assert isinstance(flagged.event, PaymentFlagged)
        assert (flagged.event.flag, flagged.event.gateway_payment_id, flagged.event.amount_minor) == (
            Flag.PAID_TWICE,
            "pay_2",
            177_000,
        )
        assert payment.status is PaymentStatus.COMPLETED

    def test_an_unrequested_refund_is_flagged(self) -> None:
        payment = completed()
        payment.record_attempt(attempt(refunded_minor=500), request())
        assert (Flag.REFUND_UNKNOWN, "pay_1", 500) in payment.flags

    def test_a_later_message_is_flagged_only_if_more_was_refunded(self) -> None:
        payment = completed()
        payment.request_refund("refund-1", 100, request())
        requested_refund = 17_700
        unasked: list[int] = []
        for refunded_minor, more in [
            (requested_refund, []),
            (requested_refund + 500, [500]),
            (requested_refund + 500, []),
            (requested_refund + 499, []),  # an older message
            (requested_refund + 700, [700]),
        ]:
            payment.record_attempt(attempt(refunded_minor=refunded_minor), request())
            unasked += more
            assert unknown_refunds(payment) == unasked
        payment.settle_flag(FlagKey(Flag.REFUND_UNKNOWN, "pay_1", 700), request())
        payment.request_refund("refund-2", 100, request())
        for refunded_minor in (requested_refund + 700, 2 * requested_refund + 700):
            payment.record_attempt(attempt(refunded_minor=refunded_minor), request())
            assert unknown_refunds(payment) == unasked
        payment.record_attempt(attempt(refunded_minor=2 * requested_refund + 701), request())
        assert unknown_refunds(payment) == [*unasked, 701]

    def test_a_requested_refund_is_not_flagged(self) -> None:
        payment = completed()
        payment.request_refund("refund-1", 1_000, request())
        payment.record_attempt(attempt(refunded_minor=177_000), request())
        assert not payment.flags


def unknown_refunds(payment: Payment) -> list[int]:
    return [key.amount_minor for key in payment.flags if key.flag is Flag.REFUND_UNKNOWN]


class TestRefunds:
    @pytest.mark.parametrize("parts", [(1_000,), (1, 999), (333, 333, 334), (1,) * 10])
    @pytest.mark.parametrize("terms", [CREDITS, PRO])
    def test_partial_refunds_add_up_to_the_whole(self, parts: tuple[int, ...], terms: PaymentTerms) -> None:
        payment = completed(terms)
        for number, part in enumerate(parts):
            payment.request_refund(f"refund-{number}", part, request())
            payment.record_refund(f"refund-{number}", f"rfnd_{number}", request())
            payment.check_invariants()
        requested_refund = [refund.requested_refund for refund in payment.refunds.values()]
        whole = sum(parts)
        assert sum(each.amount_minor for each in requested_refund) == 150_000 * whole // 1_000
        assert sum(each.tax_minor for each in requested_refund) == 27_000 * whole // 1_000
        assert payment.status is PaymentStatus.REFUNDED
        assert payment.refundable_credits == 1_000 - whole

    def test_a_refund_is_answered_once(self) -> None:
        payment = completed()
        payment.request_refund("refund-1", 10, request())
        assert [requested_refund.refund_id for requested_refund in payment.open_refunds] == ["refund-1"]
        payment.record_refund("refund-1", "rfnd_1", request())
        payment.record_refund("refund-1", "rfnd_1", request())
        assert not payment.record_refund_failure("refund-1", "late", request())
        assert payment.open_refunds == []
        assert happened(payment)[-2:] == ["RefundRequested", "Refunded"]

    def test_a_refused_refund_is_flagged_and_may_be_requested_again(self) -> None:
        payment = completed()
        payment.request_refund("refund-1", 1_000, request())
        assert payment.record_refund_failure("refund-1", "BAD_REQUEST_ERROR", request())
        assert payment.status is PaymentStatus.COMPLETED
        assert payment.refundable_credits == 1_000
        assert (Flag.REFUND_REFUSED, "pay_1", 177_000) in payment.flags
        assert payment.request_refund("refund-2", 1_000, request()).total_minor == 177_000

    def test_a_refund_cannot_exceed_the_purchase(self) -> None:
        payment = completed()
        payment.request_refund("refund-1", 600, request())
        with pytest.raises(RefundExceedsPurchase) as refusal:
            payment.request_refund("refund-2", 401, request())
        assert refusal.value.details == {"refundable": 400}

    def test_a_refund_has_at_least_one_credit(self) -> None:
        with pytest.raises(InvalidInput):
            completed().request_refund("refund-1", 0, request())

    @pytest.mark.parametrize("payment", [ordered(), completed(CUSTOM, purchase=None)])
    def test_only_a_paid_purchase_can_be_refunded(self, payment: Payment) -> None:
        with pytest.raises(PaymentNotRefundable):
            payment.request_refund("refund-1", 1, request())


class TestInvariants:
    def test_a_completed_payment_has_an_attempt(self) -> None:
        payment = ordered()
        payment.status = PaymentStatus.COMPLETED
        with pytest.raises(InvariantViolation):
            payment.check_invariants()

    def test_refunds_cannot_exceed_the_payment(self) -> None:
        payment = completed()
        requested_refund = payment.request_refund("refund-1", 1_000, request())
        again = msgspec.structs.replace(requested_refund, refund_id="refund-2")
        payment.refunds["refund-2"] = RefundState(again)
        with pytest.raises(InvariantViolation):
            payment.check_invariants()

    def test_a_replay_gives_the_same_payment(self) -> None:
        payment = completed()
        payment.request_refund("refund-1", 10, request())
        payment.record_refund("refund-1", "rfnd_1", request())
        payment.record_attempt(attempt(gateway_payment_id="pay_2"), request())
        again: Payment | None = None
        for envelope in payment.collect_events():
            again = evolve(again, envelope)
        assert again is not None
        assert again == payment
        assert (again.id, again.version) == (payment.id, payment.version)
