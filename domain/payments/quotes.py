"""What a purchase would cost: quotes, which keep their price whatever changes until they expire."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from domain.credits.auto_top_up import TopUpTerms
from domain.credits.limits import CREDITS_MAX
from domain.credits.organisation import Organisation
from domain.payments.errors import BilledByAgreement, ProAlreadyActive
from domain.payments.events import PaymentKind
from domain.payments.terms import PaymentTerms
from domain.pricing.plans import Plan
from domain.pricing.price_book import Prices
from domain.shared.errors import InvalidInput, ValidationErrors
from domain.shared.money import (
    AMOUNT_MINOR_MAX,
    MINOR_UNITS,
    PAID_MINOR_MIN,
    Cost,
    Currency,
    cost_of,
)

QUOTE_LIFETIME: Final = timedelta(minutes=30)


class PurchasePlan(StrEnum):
    """What can be bought."""

    PAY_AS_YOU_GO = "pay_as_you_go"
    PRO = "pro"
    CUSTOM = "custom"
    """An amount, with a remark that says what for; adds no credits."""


class QuotedLine(msgspec.Struct, frozen=True):
    """A line of a quote, in minor units before tax; credits have a unit price, in millionths."""

    item: str
    credits: int
    unit_price_millionths: int | None
    amount_minor: int


class PurchaseQuote(msgspec.Struct, frozen=True):
    """What is to be paid, if it is before `expires_at`. Of the credits, `included` come with the plan.

    `remark` says what a custom payment is for. People wrote it: quotes are kept beside the log, for a week.
    `top_up` is switched on when it is paid.
    """

    quote_id: str
    organisation_id: str
    plan: PurchasePlan
    terms: PaymentTerms
    included: int
    tax_per_cent: int
    quoted_at: datetime
    expires_at: datetime
    remark: str | None = None
    top_up: TopUpTerms | None = None

    @property
    def lines(self) -> list[QuotedLine]:
        """What it consists of."""
        terms, lines = self.terms, []
        if self.plan is PurchasePlan.PRO:
            lines.append(QuotedLine("pro", self.included, None, terms.fee_minor))
        if self.plan is PurchasePlan.CUSTOM:
            lines.append(QuotedLine("custom", 0, None, terms.fee_minor))
        if terms.credits > self.included:
            bought = terms.credits - self.included
            lines.append(QuotedLine("credits", bought, terms.unit_price_millionths, terms.credits_minor))
        return lines


def quote(
    quote_id: str,
    organisation: Organisation,
    plan: PurchasePlan,
    credits_count: int,
    *,
    amount_minor: int | None = None,
    remark: str | None = None,
    prices: Prices,
    now: datetime,
    top_up: TopUpTerms | None = None,
) -> PurchaseQuote:
    """Return what credits, with or without a year of Pro, or an amount cost an organisation now, tax on top.

    Its own price of a credit wins over the book's, unless it is 0. A custom payment is of `amount_minor`, for
    what `remark` says, and of no credits; nothing else has them.

    Raises:
        InvalidInput: fewer credits than the minimum, or more than can be paid. Beside Pro, none is fine too.
            Or an amount, credits or a remark that the plan lacks or does not have.
            Or auto top-up is not for sale with it, or out of range.
        ProAlreadyActive: Pro is not for sale while the organisation has it.
        BilledByAgreement: an Enterprise organisation pays by agreement.
    """
    check_can_buy(organisation, plan, now)
    if top_up is not None:
        if plan is not PurchasePlan.PAY_AS_YOU_GO:
            raise InvalidInput("plan", "auto top-up is switched on with a purchase of credits alone")
        top_up.check()
    included = 0
    if plan is PurchasePlan.CUSTOM:
        terms = custom_terms(check_custom_amount(credits_count, amount_minor, remark), organisation, prices)
    else:
        _check_has_no_amount(amount_minor, remark)
        included = prices.of(organisation.currency).pro_credits if plan is PurchasePlan.PRO else 0
        terms = _credits_terms(organisation, plan, credits_count, included, prices)
    return PurchaseQuote(
        quote_id,
        organisation.organisation_id,
        plan,
        terms,
        included,
        prices.of(organisation.currency).tax_per_cent,
        now,
        now + QUOTE_LIFETIME,
        remark,
        top_up,
    )


def check_can_buy(organisation: Organisation, plan: PurchasePlan, now: datetime) -> None:
    """Check that a plan is for sale to an organisation.

    Raises:
        ProAlreadyActive, BilledByAgreement: it is not.
    """
    if organisation.plan is Plan.ENTERPRISE:
        raise BilledByAgreement
    if plan is PurchasePlan.PRO and not organisation.can_buy_pro(now):
        raise ProAlreadyActive


def custom_terms(amount_minor: int, organisation: Organisation, prices: Prices) -> PaymentTerms:
    """Return the terms of an amount that is no price of anything; tax comes on top.

    Raises:
        InvalidInput: it is less than gateways take, or more than one payment can be of.
    """
    cost = cost_of(0, 0, prices.of(organisation.currency).tax_per_cent, fee_minor=amount_minor)
    if cost.total_minor < PAID_MINOR_MIN:
        least = f"{organisation.currency.value} {PAID_MINOR_MIN // MINOR_UNITS}.00"
        raise InvalidInput("amount_minor", f"at least {least} with tax")
    _check_can_be_paid(cost, "amount_minor", organisation.currency)
    return PaymentTerms(
        PaymentKind.CUSTOM, 0, 0, 0, amount_minor, cost.tax_minor, organisation.currency, prices.version
    )


def _credits_terms(
    organisation: Organisation, plan: PurchasePlan, credits_count: int, included: int, prices: Prices
) -> PaymentTerms:
    is_pro = plan is PurchasePlan.PRO
    if credits_count < prices.minimum_credits and not (is_pro and credits_count == 0):
        raise InvalidInput("credits", f"a purchase is of at least {prices.minimum_credits:,} credits")
    currency_prices = prices.of(organisation.currency)
    price_millionths = organisation.price_millionths or currency_prices.credit_price_millionths
    fee_minor = currency_prices.pro_fee_minor if is_pro else 0
    cost = cost_of(credits_count, price_millionths, currency_prices.tax_per_cent, fee_minor=fee_minor)
    _check_can_be_paid(cost, "credits", organisation.currency, is_too_many=credits_count > CREDITS_MAX)
    return PaymentTerms(
        PaymentKind.PRO if is_pro else PaymentKind.CREDITS,
        credits_count + included,
        price_millionths,
        cost_of(credits_count, price_millionths, 0).amount_minor,
        fee_minor,
        cost.tax_minor,
        organisation.currency,
        prices.version,
    )


def _check_can_be_paid(cost: Cost, field: str, currency: Currency, *, is_too_many: bool = False) -> None:
    if is_too_many or cost.total_minor > AMOUNT_MINOR_MAX:
        raise InvalidInput(
            field,
            "this is more than one payment can be of: at most"
            f" {currency.value} {AMOUNT_MINOR_MAX // MINOR_UNITS:,}, tax included",
        )


def check_custom_amount(credits_count: int, amount_minor: int | None, remark: str | None) -> int:
    """Return the amount of a custom payment, if it is one.

    Raises:
        InvalidInput: it has no amount, no remark that says something, or has credits.
    """
    field_errors = ValidationErrors()
    if credits_count:
        field_errors.add("credits", "a custom payment adds no credits")
    if amount_minor is None:
        field_errors.add("amount_minor", "a custom payment is of an amount")
    if not (remark or "").strip():
        field_errors.add("remark", "a custom payment says what it is for")
    field_errors.check()
    assert amount_minor is not None
    return amount_minor


def _check_has_no_amount(amount_minor: int | None, remark: str | None) -> None:
    field_errors = ValidationErrors()
    if amount_minor is not None:
        field_errors.add("amount_minor", "only a custom payment is of an amount")
    if remark is not None:
        field_errors.add("remark", "only a custom payment has a remark")
    field_errors.check()
