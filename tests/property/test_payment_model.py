"""Any order and repetition of a gateway's news: a payment is paid once at most, and no money gets lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domain.gateway import Attempt, AttemptStatus
from domain.payment import PAID, Payment
from domain.payment_facts import Flag, PaymentCompleted, PaymentStatus
from tests.unit.domain.builders import request
from tests.unit.domain.payments import CREDITS, attempt, ordered

OWED = CREDITS.total_minor
TAKEN = AttemptStatus.CAPTURED

attempts = st.builds(
    attempt,
    st.sampled_from(AttemptStatus),
    gateway_payment_id=st.sampled_from(["pay_1", "pay_2", "pay_3"]),
    amount_minor=st.sampled_from([OWED, OWED, OWED, OWED - 1]),
    currency=st.sampled_from(["INR", "INR", "USD"]),
)


def tell(payment: Payment, news: Attempt) -> None:
    if payment.learn(news, request()):
        payment.complete(news.gateway_payment_id, 3, request())


def completions(payment: Payment) -> int:
    return sum(isinstance(event.fact, PaymentCompleted) for event in payment.collect_events())


@settings(max_examples=200, deadline=None)
@given(st.lists(attempts, max_size=12))
def test_whatever_is_heard_in_whatever_order(news: list[Attempt]) -> None:
    payment = ordered()
    for each in [*news, *reversed(news), *news]:
        tell(payment, each)
    payment.check_invariants()
    took = [each for each in news if each.status is TAKEN]
    right = {each.gateway_payment_id for each in took if (each.amount_minor, each.currency) == (OWED, "INR")}
    assert (payment.gateway_payment_id in right) if right else payment.gateway_payment_id is None
    assert completions(payment) == bool(right)
    # All that took money is either what paid, or flagged.
    flagged = {gateway_payment_id for _, gateway_payment_id, _ in payment.flags}
    paid_by = {payment.gateway_payment_id}
    assert {each.gateway_payment_id for each in took} <= flagged | paid_by
    assert flagged <= {each.gateway_payment_id for each in took}


class PaymentMachine(RuleBasedStateMachine):
    """A payment beside a book of its own: what was paid, and what went back."""

    def __init__(self) -> None:
        super().__init__()
        self.payment = ordered()
        self.credits_out = 0
        self.money_out = 0
        self.under_way: dict[str, tuple[int, int]] = {}
        self.asked = 0

    @rule(news=attempts)
    def hear(self, news: Attempt) -> None:
        was = self.payment.gateway_payment_id
        tell(self.payment, news)
        assert was is None or self.payment.gateway_payment_id == was

    @precondition(lambda self: self.payment.status in PAID and self.payment.refundable_credits)
    @rule(part=st.integers(1, 1_000))
    def ask_for_money_back(self, part: int) -> None:
        credits_count = min(part, self.payment.refundable_credits)
        self.asked += 1
        asked = self.payment.request_refund(f"refund-{self.asked}", credits_count, request())
        self.credits_out += credits_count
        self.money_out += asked.total_minor
        self.under_way[asked.refund_id] = (credits_count, asked.total_minor)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), gives=st.booleans())
    def answer_a_refund(self, data: st.DataObject, gives: bool) -> None:
        refund_id = data.draw(st.sampled_from(sorted(self.under_way)))
        credits_count, money = self.under_way.pop(refund_id)
        if gives:
            self.payment.refunded(refund_id, f"rfnd-{refund_id}", request())
            assert self.payment.status is PaymentStatus.REFUNDED
        else:
            self.payment.refuse_refund(refund_id, "no", request())
            assert (Flag.REFUND_REFUSED, self.payment.gateway_payment_id, money) in self.payment.flags
            self.credits_out -= credits_count
            self.money_out -= money

    @invariant()
    def the_books_agree(self) -> None:
        self.payment.check_invariants()
        assert self.payment.refundable_credits == 1_000 - self.credits_out
        assert self.money_out == sum(
            refund.asked.total_minor
            for refund in self.payment.refunds.values()
            if refund.went_back is not False
        )
        # Never more than the share of the credits taken, and all of it for all of them.
        assert self.money_out <= OWED * self.credits_out // 1_000 + 1
        assert self.credits_out < 1_000 or self.money_out == OWED


TestPaymentMachine = PaymentMachine.TestCase
TestPaymentMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
