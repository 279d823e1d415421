"""Any order and repetition of a gateway's messages: a payment is paid at most once, and no money is lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domain.payments.errors import FlagNotOpen
from domain.payments.events import Flag, PaymentCompleted, PaymentRefundRequested, PaymentStatus
from domain.payments.gateway import Attempt, AttemptStatus
from domain.payments.payment import Payment
from domain.payments.payment_state import PAID_STATUSES
from tests.unit.credits.builders import request
from tests.unit.payments.payment_builders import CREDITS, PRO, attempt, ordered

OWED = CREDITS.total_minor
FEE = PRO.fee_minor
TAKEN = AttemptStatus.CAPTURED

attempts = st.builds(
    attempt,
    st.sampled_from(AttemptStatus),
    gateway_payment_id=st.sampled_from(["pay_1", "pay_2", "pay_3"]),
    amount_minor=st.sampled_from([OWED, OWED, OWED, OWED - 1]),
    currency=st.sampled_from(["INR", "INR", "USD"]),
)


news_of_pro = st.builds(
    attempt,
    st.sampled_from(AttemptStatus),
    gateway_payment_id=st.sampled_from(["pay_1", "pay_2", "pay_3"]),
    amount_minor=st.sampled_from([PRO.total_minor, PRO.total_minor, PRO.total_minor, OWED]),
    currency=st.sampled_from(["INR", "INR", "USD"]),
)


def report(payment: Payment, news: Attempt) -> None:
    if payment.record_attempt(news, request()):
        payment.complete(news.gateway_payment_id, 3, request())


def completions(payment: Payment) -> int:
    return sum(isinstance(envelope.event, PaymentCompleted) for envelope in payment.collect_events())


@settings(max_examples=200, deadline=None)
@given(st.lists(attempts, max_size=12))
def test_any_messages_in_any_order(news: list[Attempt]) -> None:
    payment = ordered()
    for each in [*news, *reversed(news), *news]:
        report(payment, each)
    payment.check_invariants()
    took = [each for each in news if each.status is TAKEN]
    right = {each.gateway_payment_id for each in took if (each.amount_minor, each.currency) == (OWED, "INR")}
    assert (payment.gateway_payment_id in right) if right else payment.gateway_payment_id is None
    assert completions(payment) == bool(right)
    # Every attempt that captured money either paid, or is flagged.
    flagged = {gateway_payment_id for _, gateway_payment_id, _ in payment.flags}
    paid_by = {payment.gateway_payment_id}
    assert {each.gateway_payment_id for each in took} <= flagged | paid_by
    assert flagged <= {each.gateway_payment_id for each in took}


class PaymentMachine(RuleBasedStateMachine):
    """A payment of Pro with credits, and a simple model of paid and refunded money."""

    def __init__(self) -> None:
        super().__init__()
        self.payment = ordered(PRO)
        self.credits_out = 0
        self.fee_out = 0
        self.credits_money_out = 0
        self.fee_money_out = 0
        self.odd_out: set[str] = set()
        self.under_way: dict[str, tuple[int, int, int]] = {}
        self.odd_under_way: dict[str, str] = {}
        self.requested_refund = 0
        self.unrequested_flagged = 0

    @precondition(lambda self: self.payment.status in PAID_STATUSES)
    @rule(unasked_minor=st.sampled_from([0, 1, 500, 700, 1_000_000]), news_is_late=st.booleans())
    def receive_refund_report(self, unasked_minor: int, news_is_late: bool) -> None:
        ours = self.credits_money_out + self.fee_money_out
        refunded_minor = unasked_minor if news_is_late else ours + unasked_minor
        paid_by = self.payment.gateway_payment_id
        assert paid_by is not None
        news = attempt(
            gateway_payment_id=paid_by, amount_minor=PRO.total_minor, refunded_minor=refunded_minor
        )
        self.payment.record_attempt(news, request())
        self.unrequested_flagged = max(self.unrequested_flagged, refunded_minor - ours)
        flagged_amounts = [key.amount_minor for key in self.payment.flags if key.flag is Flag.REFUND_UNKNOWN]
        assert flagged_amounts == sorted(set(flagged_amounts))
        assert max(flagged_amounts, default=0) == self.unrequested_flagged

    @rule(news=news_of_pro)
    def record_attempt(self, news: Attempt) -> None:
        was = self.payment.gateway_payment_id
        report(self.payment, news)
        assert was is None or self.payment.gateway_payment_id == was

    @precondition(lambda self: self.payment.status in PAID_STATUSES and self.payment.refundable_credits)
    @rule(part=st.integers(1, 1_000))
    def start_refund(self, part: int) -> None:
        credits_count = min(part, self.payment.refundable_credits)
        self.requested_refund += 1
        requested_refund = self.payment.request_refund(
            f"refund-{self.requested_refund}", credits_count, request()
        )
        assert requested_refund.tax_minor >= 0
        self.credits_out += credits_count
        self.credits_money_out += requested_refund.total_minor
        self.under_way[requested_refund.refund_id] = (credits_count, 0, requested_refund.total_minor)

    @precondition(lambda self: self.payment.status in PAID_STATUSES and self.payment.refundable_fee_minor)
    @rule(part=st.sampled_from([1, 3, 333_333, 1_000_000]))
    def start_fee_refund(self, part: int) -> None:
        amount_minor = min(part, self.payment.refundable_fee_minor)
        self.requested_refund += 1
        requested_refund = self.payment.request_fee_refund(
            f"refund-{self.requested_refund}", amount_minor, request()
        )
        assert requested_refund.tax_minor >= 0
        self.fee_out += amount_minor
        self.fee_money_out += requested_refund.total_minor
        self.under_way[requested_refund.refund_id] = (0, amount_minor, requested_refund.total_minor)

    @precondition(lambda self: any(self.payment.is_refundable(key) for key in self.payment.flags))
    @rule(data=st.data())
    def refund_unexpected_attempt(self, data: st.DataObject) -> None:
        odd = sorted({key[1] for key in self.payment.flags if self.payment.is_refundable(key)})
        attempt_id = data.draw(st.sampled_from(odd))
        self.requested_refund += 1
        requested_refund = self.payment.request_attempt_refund(
            f"refund-{self.requested_refund}", attempt_id, request()
        )
        took = {key.amount_minor for key in self.payment.flags if key.gateway_payment_id == attempt_id}
        assert requested_refund.amount_minor in took
        assert attempt_id not in self.odd_out
        self.odd_out.add(attempt_id)
        self.odd_under_way[requested_refund.refund_id] = attempt_id

    @precondition(lambda self: self.odd_under_way)
    @rule(data=st.data(), gives=st.booleans())
    def complete_attempt_refund(self, data: st.DataObject, gives: bool) -> None:
        refund_id = data.draw(st.sampled_from(sorted(self.odd_under_way)))
        attempt_id = self.odd_under_way.pop(refund_id)
        status = self.payment.status
        if gives:
            self.payment.record_refund(refund_id, f"rfnd-{refund_id}", request())
            left = {key.flag for key in self.payment.open_flags if key.gateway_payment_id == attempt_id}
            assert not left & {Flag.PAID_TWICE, Flag.AMOUNT_DIFFERS, Flag.REFUND_REFUSED}
        else:
            self.payment.record_refund_failure(refund_id, "no", request())
            assert (Flag.REFUND_REFUSED, attempt_id) in {key[:2] for key in self.payment.open_flags}
            self.odd_out.remove(attempt_id)
        assert self.payment.status is status

    @precondition(lambda self: self.payment.open_flags)
    @rule(data=st.data())
    def settle_open_flag(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.payment.open_flags)))
        try:
            self.payment.settle_flag(key, request())
        except FlagNotOpen:
            assert key.gateway_payment_id in self.odd_out
        else:
            assert key not in self.payment.open_flags

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), gives=st.booleans())
    def complete_refund(self, data: st.DataObject, gives: bool) -> None:
        refund_id = data.draw(st.sampled_from(sorted(self.under_way)))
        credits_count, fee_minor, money = self.under_way.pop(refund_id)
        if gives:
            self.payment.record_refund(refund_id, f"rfnd-{refund_id}", request())
            assert self.payment.status is PaymentStatus.REFUNDED
        else:
            self.payment.record_refund_failure(refund_id, "no", request())
            assert (Flag.REFUND_REFUSED, self.payment.gateway_payment_id, money) in self.payment.open_flags
            self.credits_out -= credits_count
            self.fee_out -= fee_minor
            if credits_count:
                self.credits_money_out -= money
            else:
                self.fee_money_out -= money

    @invariant()
    def check_totals(self) -> None:
        self.payment.check_invariants()
        assert self.payment.refundable_credits == 1_000 - self.credits_out
        assert (
            self.payment.status not in PAID_STATUSES
            or self.payment.refundable_fee_minor == FEE - self.fee_out
        )
        assert self.credits_money_out + self.fee_money_out == sum(
            refund.requested_refund.total_minor
            for refund in self.payment.refunds.values()
            if refund.succeeded is not False and isinstance(refund.requested_refund, PaymentRefundRequested)
        )
        # A full refund returns the whole money, and never more.
        assert self.credits_money_out <= CREDITS.total_minor
        assert self.fee_money_out <= FEE * 118 // 100
        assert self.credits_out < 1_000 or self.credits_money_out == CREDITS.total_minor
        assert self.fee_out < FEE or self.fee_money_out == FEE * 118 // 100
        # An attempt that was or is being refunded never pays.
        assert self.payment.gateway_payment_id not in self.odd_out


TestPaymentMachine = PaymentMachine.TestCase
TestPaymentMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
