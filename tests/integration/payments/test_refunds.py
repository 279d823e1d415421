"""Refunds of money without credits, and settling of flags, on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.payments.completion import PRO_DURATION
from domain.payments.errors import (
    FlagNotOpen,
    PaymentNotFound,
    PaymentNotRefundable,
    RefundExceedsRefundableFee,
)
from domain.payments.events import Flag, FlagKey, PaymentStatus
from domain.payments.gateway import AttemptStatus
from domain.payments.payment import Payment
from domain.payments.refunds import AttemptRefund, FeeRefund
from domain.pricing.plans import Plan
from domain.shared.errors import InvalidInput
from domain.shared.event_store import IdempotencyKey
from infra.payments.payment_records import PostgresQuoteStore
from infra.service.composition import credits_of
from tests.integration.payments.test_payments import (
    NOW,
    ORG,
    PRO,
    PaymentEnvironment,
    flags,
    payment_env,
)

__all__ = ["payment_env"]

PRO_FEE_MINOR = 1_000_000


def custom(payment_env: PaymentEnvironment, amount_minor: int = 500_000) -> Payment:
    begun = payment_env.payments.begin_custom(
        ORG, amount_minor, "a banner", "bookpay", payment_id="payment-c", context=payment_env.request()
    )
    return payment_env.pay(begun.payment)


def twice(payment_env: PaymentEnvironment) -> tuple[Payment, AttemptRefund]:
    """Return a payment that was paid twice, and the refund request for the second attempt."""
    payment = payment_env.buy()
    second = payment_env.gateway.pay(str(payment.order_id))
    return payment_env.record_attempt(second), AttemptRefund(second.gateway_payment_id)


def open_flags(payment: Payment) -> set[Flag]:
    return {key.flag for key in payment.open_flags}


class TestCustomPayments:
    def test_partial_refunds_up_to_the_whole_amount(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.give_back(custom(payment_env), FeeRefund(123_456))
        assert payment.status is PaymentStatus.REFUNDED
        assert payment_env.gateway.taken_minor == 590_000 - 123_456 * 118 // 100
        with pytest.raises(RefundExceedsRefundableFee) as refusal:
            payment_env.give_back(payment, FeeRefund(376_545))
        assert refusal.value.details["refundable_minor"] == 376_544
        payment_env.give_back(payment, FeeRefund(376_544))
        assert payment_env.gateway.taken_minor == 0
        assert payment_env.balance == 0

    def test_a_repeated_request_refunds_once(self, payment_env: PaymentEnvironment) -> None:
        payment = custom(payment_env)
        for _ in range(2):
            payment_env.give_back(
                payment, FeeRefund(1_000), idempotency_key=IdempotencyKey("refunds", "key", b"1")
            )
        assert len(payment_env.gateway.refunds) == 1

    def test_a_refusal_is_flagged_and_can_be_repeated_later(self, payment_env: PaymentEnvironment) -> None:
        payment = custom(payment_env)
        payment_env.gateway.refuses_refunds = True
        payment = payment_env.give_back(payment, FeeRefund(500_000))
        assert (payment.status, open_flags(payment)) == (PaymentStatus.COMPLETED, {Flag.REFUND_REFUSED})
        payment_env.gateway.refuses_refunds = False
        assert not payment_env.give_back(payment, FeeRefund(500_000)).open_flags

    def test_a_preview_records_nothing(self, payment_env: PaymentEnvironment) -> None:
        payment = custom(payment_env)
        asked: Any = payment_env.refunds.preview(
            ORG, payment.terms.payment_id, FeeRefund(1_000), context=payment_env.request()
        )
        assert (asked.amount_minor, asked.tax_minor) == (1_000, 180)
        assert payment_env.payments.payment(payment.terms.payment_id).version == payment.version

    def test_the_gateways_refunds_match_ours(self, payment_env: PaymentEnvironment) -> None:
        payment = custom(payment_env)
        (paid,) = payment_env.gateway.attempts_of[str(payment.order_id)]
        payment_env.give_back(payment, FeeRefund(1_000))
        reported = type(paid)(*(getattr(paid, name) for name in paid.__struct_fields__[:5]), 1_180)
        assert flags(payment_env.record_attempt(reported)) == set()
        reported = type(paid)(*(getattr(paid, name) for name in paid.__struct_fields__[:5]), 1_181)
        payment = payment_env.record_attempt(reported)
        assert [(key.flag, key.amount_minor) for key in payment.flags] == [(Flag.REFUND_UNKNOWN, 1)]


class TestFees:
    def test_a_full_refund_ends_the_subscription_and_leaves_the_credits(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.buy(1_000, PRO)
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR))
        assert (payment_env.plan, payment_env.balance) == (Plan.PAY_AS_YOU_GO, 1_000)
        assert payment_env.gateway.taken_minor == 177_000
        payment_env.refund(payment)
        assert (payment_env.balance, payment_env.gateway.taken_minor) == (0, 0)

    def test_only_the_last_partial_refund_ends_it(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.give_back(payment_env.buy(0, PRO), FeeRefund(PRO_FEE_MINOR // 2))
        assert payment_env.plan is Plan.PRO
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR // 2))
        assert payment_env.plan is Plan.PAY_AS_YOU_GO
        assert payment_env.gateway.taken_minor == 0

    def test_a_refusal_restores_it_with_its_end(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy(0, PRO)
        payment_env.gateway.is_down = True
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR))
        assert payment_env.plan is Plan.PAY_AS_YOU_GO, "it ends immediately"
        payment_env.now += timedelta(days=1)
        payment_env.gateway.is_down, payment_env.gateway.refuses_refunds = False, True
        assert open_flags(payment_env.follow_up(payment)) == {Flag.REFUND_REFUSED}
        organisation = payment_env.ledger.organisation(ORG)
        assert (organisation.plan, organisation.plan_expires_at) == (Plan.PRO, NOW + PRO_DURATION)

    @pytest.mark.parametrize("days", [1, 400])
    def test_a_refusal_does_not_restore_an_expired_or_replaced_subscription(
        self, payment_env: PaymentEnvironment, days: int
    ) -> None:
        payment = payment_env.buy(0, PRO)
        payment_env.gateway.is_down = True
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR))
        payment_env.now += timedelta(days=days)
        if days == 1:
            payment_env.change_plan(Plan.ENTERPRISE)
        payment_env.gateway.is_down, payment_env.gateway.refuses_refunds = False, True
        payment_env.follow_up(payment)
        assert payment_env.plan is (Plan.ENTERPRISE if days == 1 else Plan.PAY_AS_YOU_GO)

    def test_a_plan_that_staff_set_later_stays(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy(0, PRO)
        payment_env.change_plan(Plan.PRO, NOW + timedelta(days=500))
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR))
        assert payment_env.plan is Plan.PRO

    def test_a_refund_of_a_second_subscription_leaves_the_first(
        self, payment_env: PaymentEnvironment
    ) -> None:
        both = [payment_env.order(0, PRO), payment_env.order(0, PRO)]
        _, second = [payment_env.pay(each) for each in both]
        assert open_flags(second) == {Flag.ALREADY_PRO}
        second = payment_env.give_back(second, FeeRefund(PRO_FEE_MINOR))
        assert (payment_env.plan, open_flags(second)) == (Plan.PRO, set())

    def test_a_payment_recorded_by_staff_is_refunded_without_its_credits(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.order()
        paid = payment_env.gateway.pay(str(payment.order_id))
        credits_of(payment_env.ledger).commands.record_purchase(
            ORG,
            1_000,
            payment_id=paid.gateway_payment_id,
            order_id=paid.order_id,
            gateway="bookpay",
            context=payment_env.request(),
        )
        payment = payment_env.record_attempt(paid)
        assert open_flags(payment) == {Flag.CREDITS_RECORDED_BEFORE}
        payment = payment_env.give_back(payment, FeeRefund(150_000))
        assert (payment_env.balance, payment_env.gateway.taken_minor, open_flags(payment)) == (
            1_000,
            0,
            set(),
        )

    def test_a_payment_for_credits_is_refunded_with_them(self, payment_env: PaymentEnvironment) -> None:
        with pytest.raises(PaymentNotRefundable):
            payment_env.give_back(payment_env.buy(), FeeRefund(1))


class TestUnexpectedPayments:
    def test_a_second_payment_is_refunded_and_the_first_stays(self, payment_env: PaymentEnvironment) -> None:
        payment, second = twice(payment_env)
        for _ in range(2):
            payment = payment_env.give_back(
                payment, second, idempotency_key=IdempotencyKey("refunds", "key", b"1")
            )
        assert (payment.status, payment.open_flags) == (PaymentStatus.COMPLETED, set())
        assert (payment_env.gateway.taken_minor, payment_env.balance) == (177_000, 1_000)
        ((asked, _),) = payment_env.gateway.refunds.values()
        assert (asked.gateway_payment_id, asked.amount_minor) == (second.gateway_payment_id, 177_000)
        assert flags(payment_env.recheck(payment)) == {Flag.PAID_TWICE}

    def test_another_amount_of_a_failed_payment_is_refunded(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.pay(payment_env.order(), amount_minor=1_234)
        ((_, attempt, _),) = payment.open_flags
        payment = payment_env.give_back(payment, AttemptRefund(attempt))
        assert (payment.status, payment.open_flags) == (PaymentStatus.FAILED, set())
        assert payment_env.gateway.taken_minor == 0

    def test_an_unavailable_gateway_is_called_until_it_responds(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment, second = twice(payment_env)
        payment_env.gateway.is_down = True
        payment = payment_env.give_back(payment, second)
        assert open_flags(payment) == {Flag.PAID_TWICE}
        with pytest.raises(PaymentNotRefundable):
            payment_env.give_back(payment, second)
        payment_env.gateway.is_down = False
        assert not payment_env.follow_up(payment).open_flags
        assert payment_env.gateway.taken_minor == 177_000

    def test_a_refusal_is_flagged_and_changes_nothing_else(self, payment_env: PaymentEnvironment) -> None:
        payment, second = twice(payment_env)
        payment_env.gateway.refunds_fail = True
        payment = payment_env.give_back(payment, second)
        assert open_flags(payment) == {Flag.PAID_TWICE, Flag.REFUND_REFUSED}
        assert payment_env.balance == 1_000
        payment_env.gateway.refunds_fail = False
        assert not payment_env.give_back(payment, second).open_flags


class TestSettling:
    def settle(
        self, payment_env: PaymentEnvironment, payment: Payment, note: str = "kept for later", **options: Any
    ) -> Payment:
        (key,) = payment.flags
        return payment_env.payments.settle_flag(
            options.pop("organisation_id", ORG),
            payment.terms.payment_id,
            key,
            note,
            context=payment_env.request(),
            **options,
        ).payment

    def test_the_note_is_stored_outside_the_log(self, payment_env: PaymentEnvironment) -> None:
        payment, _ = twice(payment_env)
        (key,) = payment.flags
        for _ in range(2):
            assert not self.settle(
                payment_env, payment, idempotency_key=IdempotencyKey("flags", "key", b"1")
            ).open_flags
        assert PostgresQuoteStore(payment_env.ledger).notes([payment.terms.payment_id]) == {
            (payment.terms.payment_id, key): "kept for later"
        }
        settled = list(payment_env.ledger.events.get(payment.id))[-1].event
        assert (settled.actor, "kept" in str(settled)) == ("u-1", False)

    def test_a_flag_is_settled_once(self, payment_env: PaymentEnvironment) -> None:
        payment, _ = twice(payment_env)
        self.settle(payment_env, payment)
        with pytest.raises(FlagNotOpen):
            self.settle(payment_env, payment, "another note")
        assert list(PostgresQuoteStore(payment_env.ledger).notes([payment.terms.payment_id]).values()) == [
            "kept for later"
        ]

    @pytest.mark.parametrize("note", ["", "  "])
    def test_an_empty_note_is_refused(self, payment_env: PaymentEnvironment, note: str) -> None:
        payment, _ = twice(payment_env)
        with pytest.raises(InvalidInput, match="says what was done") as refused:
            self.settle(payment_env, payment, note)
        assert refused.value.field == "note"
        assert payment_env.payments.payment(payment.terms.payment_id).open_flags

    def test_flags_of_other_organisations_are_unknown(self, payment_env: PaymentEnvironment) -> None:
        payment, _ = twice(payment_env)
        credits_of(payment_env.ledger).commands.open_organisation("org-2", context=payment_env.request())
        with pytest.raises(PaymentNotFound):
            self.settle(payment_env, payment, organisation_id="org-2")

    def test_an_unknown_flag(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.pay(payment_env.order(), status=AttemptStatus.FAILED)
        with pytest.raises(FlagNotOpen):
            payment_env.payments.settle_flag(
                ORG,
                payment.terms.payment_id,
                FlagKey(Flag.PAID_TWICE, "pay_x", 1),
                "note",
                context=payment_env.request(),
            )
