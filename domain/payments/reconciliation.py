"""Reconciliation: compares a gateway's settlement list with the ledger's payments and the credits they added.

It is pure: it takes the gateway's lines and the ledger's payments, and returns every difference. Amounts are
in minor units, tax included. A period includes its `begin`, and excludes its `end`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from domain.payments.gateway import SettlementKind, SettlementLine


class DifferenceKind(StrEnum):
    """What differs."""

    UNKNOWN_PAYMENT = "unknown_payment"
    """The gateway took money for an order that the ledger does not know."""
    NOT_COMPLETED = "not_completed"
    """The gateway took the money; the ledger has the payment as unpaid."""
    MISSING_AT_GATEWAY = "missing_at_gateway"
    """The ledger has the payment as paid; the gateway does not list it."""
    AMOUNT_DIFFERS = "amount_differs"
    CURRENCY_DIFFERS = "currency_differs"
    TAKEN_TWICE = "taken_twice"
    """Another attempt of a paid order took money too, and was not refunded."""
    REFUND_MISSING_IN_LEDGER = "refund_missing_in_ledger"
    REFUND_MISSING_AT_GATEWAY = "refund_missing_at_gateway"
    CREDITS_MISSING = "credits_missing"
    """The payment is paid, but the credits that were added are not those that were bought."""


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference: the values of the ledger and of the gateway, as far as each has one."""

    kind: DifferenceKind
    payment_id: str | None = None
    organisation_id: str | None = None
    order_id: str | None = None
    gateway_payment_id: str | None = None
    refund_id: str | None = None
    gateway_refund_id: str | None = None
    currency: str | None = None
    ledger: int | str | None = None
    gateway: int | str | None = None
    credits_bought: int | None = None
    credits_added: int | None = None


class LedgerRefund(msgspec.Struct, frozen=True):
    """A refund in the ledger. `attempt` is set if it refunds an attempt that paid for nothing."""

    refund_id: str
    gateway_refund_id: str
    amount_minor: int
    at: datetime
    attempt: str | None = None
    currency: str | None = None


class LedgerPayment(msgspec.Struct, frozen=True):
    """A payment in the ledger. `gateway_payment_id` and `completed_at` are None while it is not paid.

    `credits_added` are the credits that the organisation's history has for it.
    """

    payment_id: str
    organisation_id: str
    order_id: str
    total_minor: int
    currency: str
    credits: int = 0
    credits_added: int = 0
    gateway_payment_id: str | None = None
    completed_at: datetime | None = None
    refunds: tuple[LedgerRefund, ...] = ()


class Period(msgspec.Struct, frozen=True):
    """The period that is compared. What happens from `settled_until` on may not be in the gateway's list."""

    begin: datetime
    end: datetime
    settled_until: datetime

    def __contains__(self, at: object) -> bool:
        return isinstance(at, datetime) and self.begin <= at < self.end

    def is_settlement_due(self, at: datetime | None) -> bool:
        """Tell whether the gateway's list must contain what happened at that time."""
        return at in self and at is not None and at < self.settled_until


def reconcile(
    lines: Iterable[SettlementLine],
    payments: Iterable[LedgerPayment],
    period: Period,
    *,
    lists_refunds: bool = True,
) -> list[Difference]:
    """Return every difference of a period.

    Args:
        lines: the gateway's settlement lines. Lines outside the period are used only to find the payments of
            lines inside it.
        payments: the ledger's payments of the lines' orders, those paid in the period, and those refunded in
            it.
        period: the period to compare.
        lists_refunds: whether the gateway's lines include refunds.
    """
    comparison = _Comparison(list(lines), list(payments), period)
    differences = [*comparison.of_payment_lines(), *comparison.of_payments()]
    if lists_refunds:
        differences += [*comparison.of_refund_lines(), *comparison.of_refunds()]
    return differences


class _Comparison:
    def __init__(
        self, lines: Sequence[SettlementLine], payments: Sequence[LedgerPayment], period: Period
    ) -> None:
        self._payment_lines = [line for line in lines if line.kind is SettlementKind.PAYMENT]
        self._refund_lines = [line for line in lines if line.kind is SettlementKind.REFUND]
        self._payments = payments
        self._period = period
        self._by_order = {payment.order_id: payment for payment in payments}
        self._by_gateway_payment = {payment.gateway_payment_id: payment for payment in payments}
        self._refunded_minor: dict[str, int] = defaultdict(int)
        for line in self._refund_lines:
            self._refunded_minor[line.gateway_payment_id] += line.amount_minor
        self._refunded_attempts = {refund.attempt for each in payments for refund in each.refunds}

    def of_payment_lines(self) -> Iterator[Difference]:
        """Compare each payment line of the gateway with the ledger."""
        for line in self._payment_lines:
            if line.at in self._period:
                yield from self._of_payment_line(line)

    def of_payments(self) -> Iterator[Difference]:
        """Find paid payments that the gateway does not list, or that added other credits than bought."""
        listed = {line.gateway_payment_id for line in self._payment_lines}
        for payment in self._payments:
            if (
                self._period.is_settlement_due(payment.completed_at)
                and payment.gateway_payment_id not in listed
            ):
                yield _difference_of_payment(
                    payment, kind=DifferenceKind.MISSING_AT_GATEWAY, ledger=payment.total_minor
                )
            if payment.completed_at in self._period and payment.credits_added != payment.credits:
                yield _difference_of_payment(
                    payment,
                    kind=DifferenceKind.CREDITS_MISSING,
                    credits_bought=payment.credits,
                    credits_added=payment.credits_added,
                )

    def of_refund_lines(self) -> Iterator[Difference]:
        """Compare each refund line of the gateway with the ledger."""
        refunds_by_gateway_id = {
            refund.gateway_refund_id: refund for each in self._payments for refund in each.refunds
        }
        for line in self._refund_lines:
            if line.at not in self._period:
                continue
            payment = self._find_payment(line)
            refund = refunds_by_gateway_id.get(line.gateway_refund_id or "")
            if refund is not None:
                if refund.amount_minor != line.amount_minor:
                    yield _difference_of_line(
                        payment,
                        line,
                        kind=DifferenceKind.AMOUNT_DIFFERS,
                        refund_id=refund.refund_id,
                        ledger=refund.amount_minor,
                        gateway=line.amount_minor,
                    )
            elif payment is None or payment.gateway_payment_id == line.gateway_payment_id:
                if payment is None and self._is_refunded(line.gateway_payment_id):
                    continue  # a payment that is not the ledger's, and all of it was refunded
                yield _difference_of_line(
                    payment, line, kind=DifferenceKind.REFUND_MISSING_IN_LEDGER, gateway=line.amount_minor
                )

    def of_refunds(self) -> Iterator[Difference]:
        """Find refunds that the gateway does not list."""
        listed = {line.gateway_refund_id for line in self._refund_lines}
        for payment in self._payments:
            for refund in payment.refunds:
                if self._period.is_settlement_due(refund.at) and refund.gateway_refund_id not in listed:
                    missing = _difference_of_payment(
                        payment,
                        kind=DifferenceKind.REFUND_MISSING_AT_GATEWAY,
                        refund_id=refund.refund_id,
                        gateway_refund_id=refund.gateway_refund_id,
                        ledger=refund.amount_minor,
                    )
                    if refund.attempt is not None:
                        missing = msgspec.structs.replace(
                            missing, gateway_payment_id=refund.attempt, currency=refund.currency
                        )
                    yield missing

    def _of_payment_line(self, line: SettlementLine) -> Iterator[Difference]:
        payment = self._find_payment(line)
        is_paying_attempt = payment is not None and payment.gateway_payment_id == line.gateway_payment_id
        if not is_paying_attempt and self._is_refunded(line.gateway_payment_id):
            return
        if payment is None:
            yield _difference_of_line(
                None, line, kind=DifferenceKind.UNKNOWN_PAYMENT, gateway=line.amount_minor
            )
            return
        if payment.gateway_payment_id is None:
            yield _difference_of_line(
                payment, line, kind=DifferenceKind.NOT_COMPLETED, gateway=line.amount_minor
            )
        elif not is_paying_attempt:
            yield _difference_of_line(
                payment, line, kind=DifferenceKind.TAKEN_TWICE, gateway=line.amount_minor
            )
            return
        if payment.currency != line.currency:
            yield _difference_of_line(
                payment,
                line,
                kind=DifferenceKind.CURRENCY_DIFFERS,
                ledger=payment.currency,
                gateway=line.currency,
            )
        elif payment.total_minor != line.amount_minor:
            yield _difference_of_line(
                payment,
                line,
                kind=DifferenceKind.AMOUNT_DIFFERS,
                ledger=payment.total_minor,
                gateway=line.amount_minor,
            )

    def _find_payment(self, line: SettlementLine) -> LedgerPayment | None:
        payment = self._by_order.get(line.order_id or "")
        return payment or self._by_gateway_payment.get(line.gateway_payment_id)

    def _is_refunded(self, gateway_payment_id: str) -> bool:
        """Tell whether all the money of an attempt was refunded: we requested it, or the gateway lists it."""
        if gateway_payment_id in self._refunded_attempts:
            return True
        taken_minor = sum(
            line.amount_minor for line in self._payment_lines if line.gateway_payment_id == gateway_payment_id
        )
        return 0 < taken_minor <= self._refunded_minor[gateway_payment_id]


def _difference_of_payment(payment: LedgerPayment, **fields: Any) -> Difference:
    """Return a difference that has no line of the gateway."""
    return Difference(
        payment_id=payment.payment_id,
        organisation_id=payment.organisation_id,
        order_id=payment.order_id,
        gateway_payment_id=payment.gateway_payment_id,
        currency=payment.currency,
        **fields,
    )


def _difference_of_line(payment: LedgerPayment | None, line: SettlementLine, **fields: Any) -> Difference:
    """Return a difference at a line of the gateway. The payment is None if the ledger has none."""
    return Difference(
        payment_id=None if payment is None else payment.payment_id,
        organisation_id=None if payment is None else payment.organisation_id,
        order_id=line.order_id,
        gateway_payment_id=line.gateway_payment_id,
        gateway_refund_id=line.gateway_refund_id,
        currency=line.currency,
        **fields,
    )
