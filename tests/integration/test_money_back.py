"""Money that goes back through the gateway without credits, and flags that are settled, on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.errors import (
    FlagNotOpen,
    InvalidInput,
    PaymentNotRefundable,
    PaymentUnknown,
    RefundExceedsPayment,
)
from domain.facts import Plan
from domain.gateway import AttemptStatus
from domain.payment import Payment
from domain.payment_completion import PRO_LASTS
from domain.payment_facts import Flag, FlagKey, PaymentStatus
from domain.payment_refunds import AttemptBack, FeeBack
from domain.ports import Once
from infra.payment_desk import PostgresDesk
from tests.integration.test_payments import NOW, ORG, PRO, Shop, flags, shop

__all__ = ["shop"]

PRO_FEE_MINOR = 1_000_000


def custom(shop: Shop, amount_minor: int = 500_000) -> Payment:
    begun = shop.payments.begin_custom(
        ORG, amount_minor, "a banner", "bookpay", payment_id="payment-c", request=shop.request()
    )
    return shop.pay(begun.payment)


def twice(shop: Shop) -> tuple[Payment, AttemptBack]:
    """Return a payment that was paid twice, and what gives the second money back."""
    payment = shop.buy()
    second = shop.gateway.pay(str(payment.order_id))
    return shop.learn(second), AttemptBack(second.gateway_payment_id)


def open_flags(payment: Payment) -> set[Flag]:
    return {key.flag for key in payment.open_flags}


class TestCustomPayments:
    def test_parts_go_back_until_all_is(self, shop: Shop) -> None:
        payment = shop.give_back(custom(shop), FeeBack(123_456))
        assert payment.status is PaymentStatus.REFUNDED
        assert shop.gateway.taken_minor == 590_000 - 123_456 * 118 // 100
        with pytest.raises(RefundExceedsPayment) as refusal:
            shop.give_back(payment, FeeBack(376_545))
        assert refusal.value.details["refundable_minor"] == 376_544
        shop.give_back(payment, FeeBack(376_544))
        assert shop.gateway.taken_minor == 0
        assert shop.balance == 0

    def test_it_is_asked_for_once(self, shop: Shop) -> None:
        payment = custom(shop)
        for _ in range(2):
            shop.give_back(payment, FeeBack(1_000), once=Once("refunds", "key", b"1"))
        assert len(shop.gateway.refunds) == 1

    def test_a_refusal_is_flagged_and_it_can_go_back_later(self, shop: Shop) -> None:
        payment = custom(shop)
        shop.gateway.refuses_refunds = True
        payment = shop.give_back(payment, FeeBack(500_000))
        assert (payment.status, open_flags(payment)) == (PaymentStatus.COMPLETED, {Flag.REFUND_REFUSED})
        shop.gateway.refuses_refunds = False
        assert not shop.give_back(payment, FeeBack(500_000)).open_flags

    def test_a_preview_records_nothing(self, shop: Shop) -> None:
        payment = custom(shop)
        asked: Any = shop.payments.refund_preview(
            ORG, payment.terms.payment_id, FeeBack(1_000), request=shop.request()
        )
        assert (asked.amount_minor, asked.tax_minor) == (1_000, 180)
        assert shop.payments.payment(payment.terms.payment_id).version == payment.version

    def test_what_the_gateway_says_was_given_back_is_what_we_gave(self, shop: Shop) -> None:
        payment = custom(shop)
        (paid,) = shop.gateway.attempts_of[str(payment.order_id)]
        shop.give_back(payment, FeeBack(1_000))
        told = type(paid)(*(getattr(paid, name) for name in paid.__struct_fields__[:5]), 1_180)
        assert flags(shop.learn(told)) == set()
        told = type(paid)(*(getattr(paid, name) for name in paid.__struct_fields__[:5]), 1_181)
        told_of = shop.learn(told)
        assert [(key.flag, key.amount_minor) for key in told_of.flags] == [(Flag.REFUND_UNKNOWN, 1)]


class TestFees:
    def test_all_of_it_ends_the_subscription_now_and_leaves_the_credits(self, shop: Shop) -> None:
        payment = shop.buy(1_000, PRO)
        shop.give_back(payment, FeeBack(PRO_FEE_MINOR))
        assert (shop.plan, shop.balance) == (Plan.PAY_AS_YOU_GO, 1_000)
        assert shop.gateway.taken_minor == 177_000
        shop.refund(payment)
        assert (shop.balance, shop.gateway.taken_minor) == (0, 0)

    def test_a_part_leaves_it_and_the_last_part_ends_it(self, shop: Shop) -> None:
        payment = shop.give_back(shop.buy(0, PRO), FeeBack(PRO_FEE_MINOR // 2))
        assert shop.plan is Plan.PRO
        shop.give_back(payment, FeeBack(PRO_FEE_MINOR // 2))
        assert shop.plan is Plan.PAY_AS_YOU_GO
        assert shop.gateway.taken_minor == 0

    def test_a_refusal_brings_it_back_until_when_it_was(self, shop: Shop) -> None:
        payment = shop.buy(0, PRO)
        shop.gateway.is_down = True
        shop.give_back(payment, FeeBack(PRO_FEE_MINOR))
        assert shop.plan is Plan.PAY_AS_YOU_GO, "it is gone at once"
        shop.now += timedelta(days=1)
        shop.gateway.is_down, shop.gateway.refuses_refunds = False, True
        assert open_flags(shop.attend(payment)) == {Flag.REFUND_REFUSED}
        organisation = shop.ledger.organisation(ORG)
        assert (organisation.plan, organisation.plan_expires_at) == (Plan.PRO, NOW + PRO_LASTS)

    @pytest.mark.parametrize("days", [1, 400])
    def test_a_refusal_brings_nothing_back_that_is_over_or_replaced(self, shop: Shop, days: int) -> None:
        payment = shop.buy(0, PRO)
        shop.gateway.is_down = True
        shop.give_back(payment, FeeBack(PRO_FEE_MINOR))
        shop.now += timedelta(days=days)
        if days == 1:
            shop.change_plan(Plan.ENTERPRISE)
        shop.gateway.is_down, shop.gateway.refuses_refunds = False, True
        shop.attend(payment)
        assert shop.plan is (Plan.ENTERPRISE if days == 1 else Plan.PAY_AS_YOU_GO)

    def test_a_plan_that_staff_set_since_stays(self, shop: Shop) -> None:
        payment = shop.buy(0, PRO)
        shop.change_plan(Plan.PRO, NOW + timedelta(days=500))
        shop.give_back(payment, FeeBack(PRO_FEE_MINOR))
        assert shop.plan is Plan.PRO

    def test_the_fee_of_a_second_subscription_leaves_the_first_one(self, shop: Shop) -> None:
        both = [shop.order(0, PRO), shop.order(0, PRO)]
        _, second = [shop.pay(each) for each in both]
        assert open_flags(second) == {Flag.ALREADY_PRO}
        second = shop.give_back(second, FeeBack(PRO_FEE_MINOR))
        assert (shop.plan, open_flags(second)) == (Plan.PRO, set())

    def test_credits_that_were_recorded_by_hand_stay_and_their_money_goes_back(self, shop: Shop) -> None:
        payment = shop.order()
        paid = shop.gateway.pay(str(payment.order_id))
        shop.ledger.record_purchase(
            ORG,
            1_000,
            payment_id=paid.gateway_payment_id,
            order_id=paid.order_id,
            gateway="bookpay",
            request=shop.request(),
        )
        payment = shop.learn(paid)
        assert open_flags(payment) == {Flag.CREDITS_RECORDED_BEFORE}
        payment = shop.give_back(payment, FeeBack(150_000))
        assert (shop.balance, shop.gateway.taken_minor, open_flags(payment)) == (1_000, 0, set())

    def test_what_was_paid_for_credits_goes_back_with_them(self, shop: Shop) -> None:
        with pytest.raises(PaymentNotRefundable):
            shop.give_back(shop.buy(), FeeBack(1))


class TestOddMoney:
    def test_what_was_paid_again_goes_back_and_the_payment_stays(self, shop: Shop) -> None:
        payment, second = twice(shop)
        for _ in range(2):
            payment = shop.give_back(payment, second, once=Once("refunds", "key", b"1"))
        assert (payment.status, payment.open_flags) == (PaymentStatus.COMPLETED, set())
        assert (shop.gateway.taken_minor, shop.balance) == (177_000, 1_000)
        ((asked, _),) = shop.gateway.refunds.values()
        assert (asked.gateway_payment_id, asked.amount_minor) == (second.gateway_payment_id, 177_000)
        assert flags(shop.recheck(payment)) == {Flag.PAID_TWICE}

    def test_another_amount_goes_back_from_a_payment_that_failed(self, shop: Shop) -> None:
        payment = shop.pay(shop.order(), amount_minor=1_234)
        ((_, attempt, _),) = payment.open_flags
        payment = shop.give_back(payment, AttemptBack(attempt))
        assert (payment.status, payment.open_flags) == (PaymentStatus.FAILED, set())
        assert shop.gateway.taken_minor == 0

    def test_a_gateway_that_is_down_is_asked_until_it_answers(self, shop: Shop) -> None:
        payment, second = twice(shop)
        shop.gateway.is_down = True
        payment = shop.give_back(payment, second)
        assert open_flags(payment) == {Flag.PAID_TWICE}
        with pytest.raises(PaymentNotRefundable):
            shop.give_back(payment, second)
        shop.gateway.is_down = False
        assert not shop.attend(payment).open_flags
        assert shop.gateway.taken_minor == 177_000

    def test_a_refusal_is_flagged_and_changes_nothing_else(self, shop: Shop) -> None:
        payment, second = twice(shop)
        shop.gateway.refunds_fail = True
        payment = shop.give_back(payment, second)
        assert open_flags(payment) == {Flag.PAID_TWICE, Flag.REFUND_REFUSED}
        assert shop.balance == 1_000
        shop.gateway.refunds_fail = False
        assert not shop.give_back(payment, second).open_flags


class TestSettling:
    def settle(self, shop: Shop, payment: Payment, note: str = "kept for later", **options: Any) -> Payment:
        (key,) = payment.flags
        return shop.payments.settle_flag(
            options.pop("organisation_id", ORG),
            payment.terms.payment_id,
            key,
            note,
            request=shop.request(),
            **options,
        ).payment

    def test_the_note_lies_beside_the_log(self, shop: Shop) -> None:
        payment, _ = twice(shop)
        (key,) = payment.flags
        for _ in range(2):
            assert not self.settle(shop, payment, once=Once("flags", "key", b"1")).open_flags
        assert PostgresDesk(shop.ledger).notes([payment.terms.payment_id]) == {
            (payment.terms.payment_id, key): "kept for later"
        }
        settled = list(shop.ledger.events.get(payment.id))[-1].fact
        assert (settled.actor, "kept" in str(settled)) == ("u-1", False)

    def test_a_flag_is_settled_once(self, shop: Shop) -> None:
        payment, _ = twice(shop)
        self.settle(shop, payment)
        with pytest.raises(FlagNotOpen):
            self.settle(shop, payment, "another note")
        assert list(PostgresDesk(shop.ledger).notes([payment.terms.payment_id]).values()) == [
            "kept for later"
        ]

    @pytest.mark.parametrize("note", ["", "  "])
    def test_a_note_says_something(self, shop: Shop, note: str) -> None:
        payment, _ = twice(shop)
        with pytest.raises(InvalidInput, match="says what was done") as refused:
            self.settle(shop, payment, note)
        assert refused.value.field == "note"
        assert shop.payments.payment(payment.terms.payment_id).open_flags

    def test_flags_of_others_are_unknown(self, shop: Shop) -> None:
        payment, _ = twice(shop)
        shop.ledger.open_organisation("org-2", request=shop.request())
        with pytest.raises(PaymentUnknown):
            self.settle(shop, payment, organisation_id="org-2")

    def test_a_flag_that_is_not_there(self, shop: Shop) -> None:
        payment = shop.pay(shop.order(), status=AttemptStatus.FAILED)
        with pytest.raises(FlagNotOpen):
            shop.payments.settle_flag(
                ORG,
                payment.terms.payment_id,
                FlagKey(Flag.PAID_TWICE, "pay_x", 1),
                "note",
                request=shop.request(),
            )
