"""The contract of the gateway port: each test runs against both adapters, over real HTTP.

The sandbox uses the gateways' own wire formats; a proxy in between breaks requests on demand.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from domain.payments.gateway import (
    AttemptStatus,
    ChargeRequest,
    GatewayRefundRequest,
    GatewayRefused,
    GatewayUnavailable,
    InvalidWebhookSignature,
    OrderRequest,
    PaymentGateway,
    RefundStatus,
)
from domain.payments.gateway import Payer as CardOwner
from infra.embedded.gateway_sandbox.server import SandboxGateway
from tests.integration.payments.gateways.faulty_proxy import Fault, FaultyProxy
from tests.integration.payments.gateways.gateway_client import Form, Payer

ALL_FAULTS = [
    Fault.CUT_BEFORE,
    Fault.CUT_AFTER,
    Fault.SLOW,
    Fault.ERROR_500,
    Fault.TOO_MANY,
    Fault.NO_JSON,
]

Make = Callable[..., OrderRequest]


@pytest.fixture(params=["razorpay", "payglocal"])
def gateway(adapters: dict[str, PaymentGateway], request: pytest.FixtureRequest) -> PaymentGateway:
    """Each adapter in turn."""
    return adapters[request.param]


def changed(text: str) -> str:
    """Return a text with one changed character in the middle."""
    middle = len(text) // 2
    return text[:middle] + ("a" if text[middle] != "a" else "b") + text[middle + 1 :]


class TestChargingAgain:
    """Charges of a stored card, with the owner's agreement. PayGlocal stores no cards."""

    @pytest.fixture
    def razorpay(self, adapters: dict[str, PaymentGateway]) -> PaymentGateway:
        return adapters["razorpay"]

    @pytest.fixture
    def saved_card(self, razorpay: PaymentGateway, payer: Payer, order_request: Make) -> str:
        """The payment whose card is stored and may be charged 1,770 rupees."""
        owner = CardOwner("Asha Rao", "asha@example.com", "+919000090000")
        request = msgspec.structs.replace(order_request(), mandate_minor=177_000, payer=owner)
        opened = razorpay.open_order(request)
        assert razorpay.checkout(opened.order_id, request) == opened.checkout
        payer.choose(opened.checkout, "pay")
        [paid] = razorpay.attempts(opened.order_id)
        return paid.gateway_payment_id

    def charge_of(self, order_id: str, mandate: str, amount_minor: int = 177_000) -> ChargeRequest:
        return ChargeRequest(order_id, amount_minor, "INR", "1,000 credits", mandate)

    def test_a_stored_card_is_charged_once_per_order(
        self, razorpay: PaymentGateway, saved_card: str, order_request: Make
    ) -> None:
        order_id = razorpay.open_order(order_request()).order_id
        first = razorpay.charge(self.charge_of(order_id, saved_card))
        again = razorpay.charge(self.charge_of(order_id, saved_card))
        assert first == again
        assert (first.status, first.amount_minor) == (AttemptStatus.CAPTURED, 177_000)
        assert razorpay.attempts(order_id) == [first]

    def test_a_refusal_of_the_bank_is_a_failed_attempt(
        self, razorpay: PaymentGateway, saved_card: str, order_request: Make, sandbox: SandboxGateway
    ) -> None:
        sandbox.state.set_card_outcome(sandbox.state.contents.cards[-1], "failed")
        order_id = razorpay.open_order(order_request()).order_id
        attempt = razorpay.charge(self.charge_of(order_id, saved_card))
        assert (attempt.status, attempt.reason) == (AttemptStatus.FAILED, "payment_failed")
        assert razorpay.charge(self.charge_of(order_id, saved_card)) == attempt

    def test_a_slow_bank_is_a_pending_attempt(
        self, razorpay: PaymentGateway, saved_card: str, order_request: Make, sandbox: SandboxGateway
    ) -> None:
        sandbox.state.set_card_outcome(sandbox.state.contents.cards[-1], "created")
        order_id = razorpay.open_order(order_request()).order_id
        attempt = razorpay.charge(self.charge_of(order_id, saved_card))
        assert attempt.status is AttemptStatus.PENDING
        payment = sandbox.state.payment(attempt.gateway_payment_id)
        assert payment is not None
        sandbox.state.change_status(payment, "captured")
        assert razorpay.charge(self.charge_of(order_id, saved_card)).status is AttemptStatus.CAPTURED

    def test_more_than_the_owner_agreed_to_is_refused(
        self, razorpay: PaymentGateway, saved_card: str, order_request: Make
    ) -> None:
        order_id = razorpay.open_order(order_request(177_001)).order_id
        with pytest.raises(GatewayRefused):
            razorpay.charge(self.charge_of(order_id, saved_card, 177_001))

    def test_a_card_that_was_not_stored_is_not_charged(
        self, razorpay: PaymentGateway, payer: Payer, order_request: Make
    ) -> None:
        opened = razorpay.open_order(order_request())
        payer.choose(opened.checkout, "pay")
        [paid] = razorpay.attempts(opened.order_id)
        order_id = razorpay.open_order(order_request()).order_id
        with pytest.raises(GatewayRefused) as refused:
            razorpay.charge(self.charge_of(order_id, paid.gateway_payment_id))
        assert refused.value.details["code"] == "CARD_NOT_KEPT"
        razorpay.forget_card(paid.gateway_payment_id)

    def test_a_deleted_card_is_not_charged(
        self, razorpay: PaymentGateway, saved_card: str, order_request: Make
    ) -> None:
        razorpay.forget_card(saved_card)
        razorpay.forget_card(saved_card)
        order_id = razorpay.open_order(order_request()).order_id
        with pytest.raises(GatewayRefused):
            razorpay.charge(self.charge_of(order_id, saved_card))

    @pytest.mark.parametrize("fault", ALL_FAULTS)
    def test_it_is_charged_once_with_lost_responses(
        self, razorpay: PaymentGateway, saved_card: str, order_request: Make, proxy: FaultyProxy, fault: Fault
    ) -> None:
        order_id = razorpay.open_order(order_request()).order_id
        proxy.break_requests(
            Fault.NONE, Fault.NONE, fault
        )  # the first requests look up the order's payments and the card
        with pytest.raises(GatewayUnavailable):
            razorpay.charge(self.charge_of(order_id, saved_card))
        proxy.break_requests()
        attempt = razorpay.charge(self.charge_of(order_id, saved_card))
        assert razorpay.attempts(order_id) == [attempt]
        assert attempt.status is AttemptStatus.CAPTURED

    def test_payglocal_stores_no_card(self, adapters: dict[str, PaymentGateway]) -> None:
        payglocal = adapters["payglocal"]
        assert not payglocal.supports_recurring_charges
        payglocal.forget_card("gl_o-1")
        with pytest.raises(GatewayRefused):
            payglocal.charge(self.charge_of("gl_o-2", "gl_o-1"))


class TestPaying:
    def test_a_payment_is_captured_in_full(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make
    ) -> None:
        request = order_request(200_000, "USD")
        opened = gateway.open_order(request)
        assert gateway.attempts(opened.order_id) == []

        back = payer.choose(opened.checkout, "pay")

        assert (back.method, back.action) == ("post", request.return_url)
        [attempt] = gateway.attempts(opened.order_id)
        assert attempt.status is AttemptStatus.CAPTURED
        assert (attempt.order_id, attempt.amount_minor, attempt.currency) == (opened.order_id, 200_000, "USD")
        assert gateway.verify_return(back.fields).attempt == attempt

    def test_odd_amounts_arrive_to_the_last_minor_unit(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make
    ) -> None:
        for amount_minor in (101, 110, 199, 123_456_789, 177_005):
            opened = gateway.open_order(order_request(amount_minor))
            payer.choose(opened.checkout, "pay")
            assert [each.amount_minor for each in gateway.attempts(opened.order_id)] == [amount_minor]

    def test_a_refusal_of_the_bank_fails_with_a_reason(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make
    ) -> None:
        opened = gateway.open_order(order_request())
        back = payer.choose(opened.checkout, "fail")
        attempt = gateway.verify_return(back.fields).attempt
        assert attempt is not None
        assert attempt.status is AttemptStatus.FAILED
        assert attempt.reason in {"payment_failed", "ISSUER_DECLINE"}
        assert gateway.attempts(opened.order_id) == [attempt]

    def test_an_undecided_payment_is_pending(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make, sandbox: SandboxGateway
    ) -> None:
        opened = gateway.open_order(order_request())
        payer.choose(opened.checkout, "pending")
        [pending] = gateway.attempts(opened.order_id)
        assert pending.status is AttemptStatus.PENDING

        payment = sandbox.state.payment(pending.gateway_payment_id)
        assert payment is not None
        sandbox.state.change_status(payment, "captured")

        assert [a.status for a in gateway.attempts(opened.order_id)] == [AttemptStatus.CAPTURED]

    def test_a_late_payment_is_captured(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make, sandbox: SandboxGateway
    ) -> None:
        opened = gateway.open_order(order_request())
        payer.choose(opened.checkout, "late")
        [late] = gateway.attempts(opened.order_id)
        assert late.status is AttemptStatus.PENDING

        payment = sandbox.state.payment(late.gateway_payment_id)
        assert payment is not None
        payment.captures_at = sandbox.state.clock_s() - 1
        sandbox.state.capture_due()

        assert [a.status for a in gateway.attempts(opened.order_id)] == [AttemptStatus.CAPTURED]

    def test_another_amount_is_reported(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make
    ) -> None:
        opened = gateway.open_order(order_request(177_000))
        payer.choose(opened.checkout, "other-amount", 100)
        [attempt] = gateway.attempts(opened.order_id)
        assert (attempt.status, attempt.amount_minor) == (AttemptStatus.CAPTURED, 100)


class TestReturns:
    @pytest.fixture
    def paid(self, gateway: PaymentGateway, payer: Payer, order_request: Make) -> Form:
        """The return of a payment."""
        return payer.choose(gateway.open_order(order_request()).checkout, "pay")

    def test_a_replayed_return_is_the_same_notification(self, gateway: PaymentGateway, paid: Form) -> None:
        assert gateway.verify_return(paid.fields) == gateway.verify_return(paid.fields)

    def test_any_changed_field_is_refused(self, gateway: PaymentGateway, paid: Form) -> None:
        for name, value in paid.fields.items():
            with pytest.raises(InvalidWebhookSignature):
                gateway.verify_return({**paid.fields, name: changed(value)})

    def test_any_missing_field_is_refused(self, gateway: PaymentGateway, paid: Form) -> None:
        for name in paid.fields:
            with pytest.raises(InvalidWebhookSignature):
                gateway.verify_return({key: value for key, value in paid.fields.items() if key != name})

    def test_nonsense_is_refused(self, gateway: PaymentGateway) -> None:
        for fields in ({}, {"x-gl-token": "é.ü.ß"}, {"error[metadata]": "[]"}, {"error[metadata]": "{"}):
            with pytest.raises(InvalidWebhookSignature):
                gateway.verify_return(fields)

    def test_an_invented_failure_of_a_paid_order_does_not_make_it_fail(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make
    ) -> None:
        opened = gateway.open_order(order_request())
        payer.choose(opened.checkout, "pay")
        [paid] = gateway.attempts(opened.order_id)
        invented = f'{{"order_id": "{opened.order_id}", "payment_id": "{paid.gateway_payment_id}"}}'
        try:
            notification = gateway.verify_return({"error[code]": "X", "error[metadata]": invented})
        except InvalidWebhookSignature:
            return
        assert notification.attempt == paid, "the gateway's API decides"


class TestOrders:
    def test_an_order_without_an_amount_is_refused_with_the_gateways_reason(
        self, gateway: PaymentGateway, order_request: Make
    ) -> None:
        with pytest.raises(GatewayRefused) as refusal:
            gateway.open_order(order_request(0))
        assert refusal.value.details["code"] in {"BAD_REQUEST_ERROR", "GL-400-002"}

    def test_an_unknown_order_has_no_attempts(self, gateway: PaymentGateway) -> None:
        with pytest.raises(GatewayRefused):
            gateway.attempts("order_of_nobody/../x")

    def test_a_repeated_request_returns_the_same_order_and_page(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make
    ) -> None:
        request = order_request()
        opened = gateway.open_order(request)
        assert gateway.open_order(request) == opened
        again = gateway.checkout(opened.order_id, request)
        assert again == opened.checkout
        payer.choose(again, "pay")
        assert len(gateway.attempts(opened.order_id)) == 1

    @pytest.mark.parametrize("fault", ALL_FAULTS)
    def test_a_repeat_after_a_lost_response_never_opens_two_orders(
        self,
        gateway: PaymentGateway,
        order_request: Make,
        sandbox: SandboxGateway,
        proxy: FaultyProxy,
        fault: Fault,
    ) -> None:
        request = order_request()
        proxy.break_requests(Fault.NONE, fault)  # the first request checks whether the order exists
        with pytest.raises(GatewayUnavailable):
            gateway.open_order(request)
        opened = gateway.open_order(request)
        (order,) = [each for each in sandbox.state.contents.orders if each.receipt == request.payment_id]
        assert opened.order_id == order.id
        if opened.checkout is None:  # nobody will get the link to its page any more
            assert gateway.name == "payglocal"
            assert fault in {Fault.CUT_AFTER, Fault.SLOW}

    @pytest.mark.parametrize("fault", ALL_FAULTS)
    def test_an_unavailable_gateway_is_not_an_answer_about_a_payment(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make, proxy: FaultyProxy, fault: Fault
    ) -> None:
        opened = gateway.open_order(order_request())
        back = payer.choose(opened.checkout, "pay")
        proxy.break_requests(fault, fault)
        with pytest.raises(GatewayUnavailable):
            gateway.attempts(opened.order_id)
        with pytest.raises(GatewayUnavailable):
            gateway.verify_return(back.fields)
        assert [a.status for a in gateway.attempts(opened.order_id)] == [AttemptStatus.CAPTURED]

    def test_errors_contain_no_secret(
        self, gateway: PaymentGateway, order_request: Make, proxy: FaultyProxy, data_dir: Any, capfd: Any
    ) -> None:
        from infra.embedded.gateway_sandbox.keys import KeyFolder

        keys = KeyFolder(data_dir).keys()
        for fault in (Fault.CUT_BEFORE, Fault.ERROR_500, Fault.NO_JSON):
            proxy.break_requests(fault)
            with pytest.raises(GatewayUnavailable) as failure:
                gateway.open_order(order_request())
            said = repr(failure.value) + str(failure.value.__cause__) + str(failure.value.__context__)
            assert keys.razorpay_key_secret not in said
            assert "eyJ" not in said, "no token either"
        assert capfd.readouterr() == ("", ""), "the client prints nothing"


class TestRefunds:
    @pytest.fixture
    def payment_id(self, gateway: PaymentGateway, payer: Payer, order_request: Make) -> str:
        """A payment of 177,000 minor units."""
        opened = gateway.open_order(order_request(177_000))
        payer.choose(opened.checkout, "pay")
        return gateway.attempts(opened.order_id)[0].gateway_payment_id

    def refunded(self, sandbox: SandboxGateway, payment_id: str) -> int:
        payment = sandbox.state.payment(payment_id)
        assert payment is not None
        return sandbox.state.refunded_minor(payment)

    def test_a_repeated_refund_happens_once(
        self, gateway: PaymentGateway, sandbox: SandboxGateway, payment_id: str
    ) -> None:
        request = GatewayRefundRequest(f"refund-1-{payment_id}", payment_id, 50_010, "INR")
        first = gateway.refund(request)
        assert (first.status, first.amount_minor) == (RefundStatus.DONE, 50_010)
        assert gateway.refund(request) == first
        assert self.refunded(sandbox, payment_id) == 50_010

    def test_partial_refunds_cannot_exceed_the_payment(
        self, gateway: PaymentGateway, sandbox: SandboxGateway, payment_id: str
    ) -> None:
        gateway.refund(GatewayRefundRequest(f"part-1-{payment_id}", payment_id, 100_000, "INR"))
        gateway.refund(GatewayRefundRequest(f"part-2-{payment_id}", payment_id, 77_000, "INR"))
        with pytest.raises(GatewayRefused):
            gateway.refund(GatewayRefundRequest(f"part-3-{payment_id}", payment_id, 1, "INR"))
        assert self.refunded(sandbox, payment_id) == 177_000

    def test_two_refunds_of_the_same_amount_are_two(
        self, gateway: PaymentGateway, sandbox: SandboxGateway, payment_id: str
    ) -> None:
        for number in range(2):
            gateway.refund(GatewayRefundRequest(f"same-{number}-{payment_id}", payment_id, 1_000, "INR"))
        assert self.refunded(sandbox, payment_id) == 2_000

    @pytest.mark.parametrize("fault", ALL_FAULTS)
    def test_a_repeat_after_a_lost_response_refunds_once(
        self,
        gateway: PaymentGateway,
        sandbox: SandboxGateway,
        proxy: FaultyProxy,
        payment_id: str,
        fault: Fault,
    ) -> None:
        request = GatewayRefundRequest(f"again-{payment_id}", payment_id, 10_000, "INR")
        proxy.break_requests(Fault.NONE, fault)  # the first request checks whether the refund exists
        with pytest.raises(GatewayUnavailable):
            gateway.refund(request)
        assert gateway.refund(request).status is RefundStatus.DONE
        assert self.refunded(sandbox, payment_id) == 10_000

    def test_an_unpaid_order_cannot_be_refunded(
        self, gateway: PaymentGateway, payer: Payer, order_request: Make
    ) -> None:
        opened = gateway.open_order(order_request())
        payer.choose(opened.checkout, "fail")
        [failed] = gateway.attempts(opened.order_id)
        with pytest.raises(GatewayRefused):
            gateway.refund(GatewayRefundRequest("refund-of-nothing", failed.gateway_payment_id, 100, "INR"))

    def test_short_and_unusual_refund_ids_are_accepted(
        self, gateway: PaymentGateway, sandbox: SandboxGateway, payment_id: str
    ) -> None:
        request = GatewayRefundRequest(f"ü {payment_id[-2:]}", payment_id, 500, "INR")
        assert gateway.refund(request) == gateway.refund(request)
        assert self.refunded(sandbox, payment_id) == 500


def test_the_list_of_settlements_is_complete_or_refused(
    gateway: PaymentGateway, payer: Payer, order_request: Make
) -> None:
    opened = gateway.open_order(order_request(300_000))
    payer.choose(opened.checkout, "pay")
    [attempt] = gateway.attempts(opened.order_id)
    refund = gateway.refund(
        GatewayRefundRequest(f"listed-{opened.order_id}", attempt.gateway_payment_id, 1_234, "INR")
    )
    today = datetime.now(UTC).date()
    try:
        lines = list(gateway.settlement_lines(today - timedelta(days=1), today))
    except GatewayRefused as refusal:
        assert refusal.details["code"] == "NO_SETTLEMENT_LIST"  # noqa: PT017
        return
    ours = [line for line in lines if line.gateway_payment_id == attempt.gateway_payment_id]
    assert [(line.kind, line.amount_minor, line.currency, line.gateway_refund_id) for line in ours] == [
        ("payment", 300_000, "INR", None),
        ("refund", 1_234, "INR", refund.gateway_refund_id),
    ]
    assert not list(gateway.settlement_lines(today - timedelta(days=60), today - timedelta(days=30)))
