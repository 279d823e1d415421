"""All differences between a gateway's list and the ledger, and cases that are not differences."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from domain.payments.gateway import SettlementKind, SettlementLine
from domain.payments.reconciliation import (
    Difference,
    DifferenceKind,
    LedgerPayment,
    LedgerRefund,
    Period,
    reconcile,
)

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
NOON = BEGIN + timedelta(hours=12)
DAY = timedelta(days=1)
NOVEMBER = Period(BEGIN, BEGIN + 30 * DAY, settled_until=BEGIN + 20 * DAY)

PAID = LedgerPayment(
    "p-1",
    "acme",
    "order_1",
    177_000,
    "INR",
    credits=1_000,
    credits_added=1_000,
    gateway_payment_id="pay_1",
    completed_at=NOON,
)
TAKEN = SettlementLine(SettlementKind.PAYMENT, "pay_1", "order_1", 177_000, "INR", NOON)
BACK = LedgerRefund("r-1", "rfnd_1", 17_700, NOON + DAY)
RETURNED = SettlementLine(
    SettlementKind.REFUND, "pay_1", "order_1", 17_700, "INR", NOON + DAY, gateway_refund_id="rfnd_1"
)


def but(thing: Any, **changes: Any) -> Any:
    """Return a struct with some fields changed."""
    return msgspec.structs.replace(thing, **changes)


def kinds(lines: list[SettlementLine], payments: list[LedgerPayment], **options: Any) -> list[str]:
    return [difference.kind.value for difference in reconcile(lines, payments, NOVEMBER, **options)]


def test_equal_lists_have_no_difference() -> None:
    assert reconcile([TAKEN, RETURNED], [but(PAID, refunds=(BACK,))], NOVEMBER) == []
    assert reconcile([], [], NOVEMBER) == []


def test_an_unknown_payment_is_reported_with_its_amount() -> None:
    assert reconcile([TAKEN], [], NOVEMBER) == [
        Difference(
            DifferenceKind.UNKNOWN_PAYMENT,
            order_id="order_1",
            gateway_payment_id="pay_1",
            currency="INR",
            gateway=177_000,
        )
    ]


def test_a_payment_without_an_order_is_found_by_its_own_id() -> None:
    assert kinds([but(TAKEN, order_id=None)], [PAID]) == []
    assert kinds([but(TAKEN, order_id=None, gateway_payment_id="pay_2")], [PAID]) == [
        "unknown_payment",
        "missing_at_gateway",
    ]


def test_a_captured_payment_that_is_not_completed_here() -> None:
    failed = but(PAID, gateway_payment_id=None, completed_at=None, credits_added=0)
    assert kinds([TAKEN], [failed]) == ["not_completed"]
    assert kinds([but(TAKEN, amount_minor=100)], [failed]) == ["not_completed", "amount_differs"]


def test_a_payment_the_gateway_does_not_list() -> None:
    [difference] = reconcile([], [PAID], NOVEMBER)
    assert (difference.kind, difference.payment_id, difference.ledger) == (
        "missing_at_gateway",
        "p-1",
        177_000,
    )


def test_a_recent_payment_is_not_missing() -> None:
    young = but(PAID, completed_at=NOVEMBER.settled_until, refunds=(but(BACK, at=NOVEMBER.settled_until),))
    assert kinds([], [young]) == []


@pytest.mark.parametrize(
    ("change", "kind", "ledger", "gateway"),
    [
        ({"amount_minor": 177_001}, "amount_differs", 177_000, 177_001),
        ({"currency": "USD"}, "currency_differs", "INR", "USD"),
        ({"currency": "USD", "amount_minor": 1}, "currency_differs", "INR", "USD"),
    ],
)
def test_another_amount_or_currency(change: Any, kind: str, ledger: Any, gateway: Any) -> None:
    [difference] = reconcile([but(TAKEN, **change)], [PAID], NOVEMBER)
    assert (difference.kind, difference.ledger, difference.gateway) == (kind, ledger, gateway)


def test_a_second_payment_of_an_order_is_reported_until_it_is_refunded() -> None:
    second = but(TAKEN, gateway_payment_id="pay_2")
    assert kinds([TAKEN, second], [PAID]) == ["taken_twice"]
    back = but(RETURNED, gateway_payment_id="pay_2", gateway_refund_id="rfnd_2")
    assert kinds([TAKEN, second, back], [PAID]) == ["taken_twice"], "a partial refund is not enough"
    assert kinds([TAKEN, second, but(back, amount_minor=177_000)], [PAID]) == []


def test_an_unknown_payment_that_was_refunded_is_no_difference() -> None:
    all_of_it = but(RETURNED, amount_minor=177_000)
    assert kinds([TAKEN, all_of_it], []) == []
    assert kinds([all_of_it], []) == ["refund_missing_in_ledger"], "its payment may be outside the list"


def test_refunds_that_one_side_does_not_know() -> None:
    assert kinds([TAKEN, RETURNED], [PAID]) == ["refund_missing_in_ledger"]
    [difference] = reconcile([TAKEN], [but(PAID, refunds=(BACK,))], NOVEMBER)
    assert (difference.kind, difference.refund_id, difference.gateway_refund_id, difference.ledger) == (
        "refund_missing_at_gateway",
        "r-1",
        "rfnd_1",
        17_700,
    )


def test_a_refund_of_another_amount() -> None:
    [difference] = reconcile(
        [TAKEN, but(RETURNED, amount_minor=17_701)], [but(PAID, refunds=(BACK,))], NOVEMBER
    )
    assert (difference.kind, difference.refund_id, difference.ledger, difference.gateway) == (
        "amount_differs",
        "r-1",
        17_700,
        17_701,
    )


def test_refunds_are_not_missing_if_a_gateway_lists_none() -> None:
    assert kinds([TAKEN], [but(PAID, refunds=(BACK,))], lists_refunds=False) == []


@pytest.mark.parametrize("credits_added", [0, 999, 2_000])
def test_credits_that_were_not_added(credits_added: int) -> None:
    [difference] = reconcile([TAKEN], [but(PAID, credits_added=credits_added)], NOVEMBER)
    assert (difference.kind, difference.credits_bought, difference.credits_added) == (
        "credits_missing",
        1_000,
        credits_added,
    )


def test_payments_outside_the_period_are_compared_in_their_period() -> None:
    before, after = BEGIN - timedelta(seconds=1), NOVEMBER.end
    for at in (before, after):
        lines = [but(TAKEN, at=at, amount_minor=1), but(RETURNED, at=at, amount_minor=1)]
        theirs = but(PAID, completed_at=at, credits_added=0, refunds=(but(BACK, at=at),))
        assert kinds(lines, [theirs]) == []
        assert kinds([], [theirs]) == []
    assert kinds([but(TAKEN, at=before)], [PAID]) == [], "started before the period, completed in it"


ODD_BACK = LedgerRefund("r-2", "rfnd_2", 177_000, NOON + DAY, attempt="pay_2", currency="INR")
SECOND = but(TAKEN, gateway_payment_id="pay_2")
SECOND_RETURNED = but(RETURNED, gateway_payment_id="pay_2", gateway_refund_id="rfnd_2", amount_minor=177_000)


def test_a_refunded_attempt_is_no_difference_on_both_sides() -> None:
    theirs = but(PAID, refunds=(ODD_BACK,))
    assert kinds([TAKEN, SECOND, SECOND_RETURNED], [theirs]) == []
    assert kinds([TAKEN, SECOND], [theirs], lists_refunds=False) == []
    failed = but(
        PAID, gateway_payment_id=None, completed_at=None, credits=0, credits_added=0, refunds=(ODD_BACK,)
    )
    assert kinds([but(SECOND, amount_minor=1)], [failed], lists_refunds=False) == []


def test_a_refund_of_an_attempt_that_the_gateway_does_not_list_is_reported() -> None:
    [difference] = reconcile([TAKEN, SECOND], [but(PAID, refunds=(but(ODD_BACK, currency="USD"),))], NOVEMBER)
    assert (difference.kind, difference.gateway_payment_id, difference.currency, difference.ledger) == (
        "refund_missing_at_gateway",
        "pay_2",
        "USD",
        177_000,
    )


def test_a_refund_of_an_attempt_with_another_amount() -> None:
    line = but(SECOND_RETURNED, amount_minor=176_999)
    [difference] = reconcile([TAKEN, SECOND, line], [but(PAID, refunds=(ODD_BACK,))], NOVEMBER)
    assert (difference.kind, difference.refund_id) == ("amount_differs", "r-2")
