"""Money that goes back through the gateway without credits, and flags that are settled, on PostgreSQL."""

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
    """Return a payment that was paid twice, and what gives the second money back."""
    payment = payment_env.buy()
    second = payment_env.gateway.pay(str(payment.order_id))
    return payment_env.record_attempt(second), AttemptRefund(second.gateway_payment_id)


def open_flags(payment: Payment) -> set[Flag]:
    return {key.flag for key in payment.open_flags}


class TestCustomPayments:
    def test_parts_go_back_until_all_is(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.give_back(custom(payment_env), FeeRefund(123_456))
        assert payment.status is PaymentStatus.REFUNDED
        assert payment_env.gateway.taken_minor == 590_000 - 123_456 * 118 // 100
        with pytest.raises(RefundExceedsRefundableFee) as refusal:
            payment_env.give_back(payment, FeeRefund(376_545))
        assert refusal.value.details["refundable_minor"] == 376_544
        payment_env.give_back(payment, FeeRefund(376_544))
        assert payment_env.gateway.taken_minor == 0
        assert payment_env.balance == 0

    def test_it_is_asked_for_once(self, payment_env: PaymentEnvironment) -> None:
        payment = custom(payment_env)
        for _ in range(2):
            payment_env.give_back(
                payment, FeeRefund(1_000), idempotency_key=IdempotencyKey("refunds", "key", b"1")
            )
        assert len(payment_env.gateway.refunds) == 1

    def test_a_refusal_is_flagged_and_it_can_go_back_later(self, payment_env: PaymentEnvironment) -> None:
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

    def test_what_the_gateway_says_was_given_back_is_what_we_gave(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = custom(payment_env)
        (paid,) = payment_env.gateway.attempts_of[str(payment.order_id)]
        payment_env.give_back(payment, FeeRefund(1_000))
        told = type(paid)(*(getattr(paid, name) for name in paid.__struct_fields__[:5]), 1_180)
        assert flags(payment_env.record_attempt(told)) == set()
        told = type(paid)(*(getattr(paid, name) for name in paid.__struct_fields__[:5]), 1_181)
        told_of = payment_env.record_attempt(told)
        assert [(key.flag, key.amount_minor) for key in told_of.flags] == [(Flag.REFUND_UNKNOWN, 1)]


class TestFees:
    def test_all_of_it_ends_the_subscription_now_and_leaves_the_credits(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.buy(1_000, PRO)
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR))
        assert (payment_env.plan, payment_env.balance) == (Plan.PAY_AS_YOU_GO, 1_000)
        assert payment_env.gateway.taken_minor == 177_000
        payment_env.refund(payment)
        assert (payment_env.balance, payment_env.gateway.taken_minor) == (0, 0)

    def test_a_part_leaves_it_and_the_last_part_ends_it(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.give_back(payment_env.buy(0, PRO), FeeRefund(PRO_FEE_MINOR // 2))
        assert payment_env.plan is Plan.PRO
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR // 2))
        assert payment_env.plan is Plan.PAY_AS_YOU_GO
        assert payment_env.gateway.taken_minor == 0

    def test_a_refusal_brings_it_back_until_when_it_was(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy(0, PRO)
        payment_env.gateway.is_down = True
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR))
        assert payment_env.plan is Plan.PAY_AS_YOU_GO, "it is gone at once"
        payment_env.now += timedelta(days=1)
        payment_env.gateway.is_down, payment_env.gateway.refuses_refunds = False, True
        assert open_flags(payment_env.follow_up(payment)) == {Flag.REFUND_REFUSED}
        organisation = payment_env.ledger.organisation(ORG)
        assert (organisation.plan, organisation.plan_expires_at) == (Plan.PRO, NOW + PRO_DURATION)

    @pytest.mark.parametrize("days", [1, 400])
    def test_a_refusal_brings_nothing_back_that_is_over_or_replaced(
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

    def test_a_plan_that_staff_set_since_stays(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.buy(0, PRO)
        payment_env.change_plan(Plan.PRO, NOW + timedelta(days=500))
        payment_env.give_back(payment, FeeRefund(PRO_FEE_MINOR))
        assert payment_env.plan is Plan.PRO

    def test_the_fee_of_a_second_subscription_leaves_the_first_one(
        self, payment_env: PaymentEnvironment
    ) -> None:
        both = [payment_env.order(0, PRO), payment_env.order(0, PRO)]
        _, second = [payment_env.pay(each) for each in both]
        assert open_flags(second) == {Flag.ALREADY_PRO}
        second = payment_env.give_back(second, FeeRefund(PRO_FEE_MINOR))
        assert (payment_env.plan, open_flags(second)) == (Plan.PRO, set())

    def test_credits_that_were_recorded_by_hand_stay_and_their_money_goes_back(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.order()
        paid = payment_env.gateway.pay(str(payment.order_id))
        payment_env.ledger.record_purchase(
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

    def test_what_was_paid_for_credits_goes_back_with_them(self, payment_env: PaymentEnvironment) -> None:
        with pytest.raises(PaymentNotRefundable):
            payment_env.give_back(payment_env.buy(), FeeRefund(1))


class TestUnexpectedPayments:
    def test_what_was_paid_again_goes_back_and_the_payment_stays(
        self, payment_env: PaymentEnvironment
    ) -> None:
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

    def test_another_amount_goes_back_from_a_payment_that_failed(
        self, payment_env: PaymentEnvironment
    ) -> None:
        payment = payment_env.pay(payment_env.order(), amount_minor=1_234)
        ((_, attempt, _),) = payment.open_flags
        payment = payment_env.give_back(payment, AttemptRefund(attempt))
        assert (payment.status, payment.open_flags) == (PaymentStatus.FAILED, set())
        assert payment_env.gateway.taken_minor == 0

    def test_a_gateway_that_is_down_is_asked_until_it_answers(self, payment_env: PaymentEnvironment) -> None:
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

    def test_the_note_lies_beside_the_log(self, payment_env: PaymentEnvironment) -> None:
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
    def test_a_note_says_something(self, payment_env: PaymentEnvironment, note: str) -> None:
        payment, _ = twice(payment_env)
        with pytest.raises(InvalidInput, match="says what was done") as refused:
            self.settle(payment_env, payment, note)
        assert refused.value.field == "note"
        assert payment_env.payments.payment(payment.terms.payment_id).open_flags

    def test_flags_of_others_are_unknown(self, payment_env: PaymentEnvironment) -> None:
        payment, _ = twice(payment_env)
        payment_env.ledger.open_organisation("org-2", context=payment_env.request())
        with pytest.raises(PaymentNotFound):
            self.settle(payment_env, payment, organisation_id="org-2")

    def test_a_flag_that_is_not_there(self, payment_env: PaymentEnvironment) -> None:
        payment = payment_env.pay(payment_env.order(), status=AttemptStatus.FAILED)
        with pytest.raises(FlagNotOpen):
            payment_env.payments.settle_flag(
                ORG,
                payment.terms.payment_id,
                FlagKey(Flag.PAID_TWICE, "pay_x", 1),
                "note",
                context=payment_env.request(),
            )
