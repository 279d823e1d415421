"""Quotes: what a purchase costs. A quote keeps its price until it expires, even if prices change."""

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
    """What an organisation can buy."""

    PAY_AS_YOU_GO = "pay_as_you_go"
    PRO = "pro"
    CUSTOM = "custom"
    """An amount, with a remark that says what it is for; adds no credits."""


class QuotedLine(msgspec.Struct, frozen=True):
    """A line of a quote: its amount in minor units, without tax. Credits have a unit price in millionths."""

    item: str
    credits: int
    unit_price_millionths: int | None
    amount_minor: int


class PurchaseQuote(msgspec.Struct, frozen=True):
    """What a purchase costs until `expires_at`. Of the credits, `included` come with the plan.

    `remark` says what a custom payment is for. People write it, so quotes are stored outside the log, for a
    week. When the quote is paid, auto top-up is switched on with the terms `top_up`.
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
        """What is bought, line by line."""
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
    """Return a quote: of credits, of a year of Pro with or without credits, or of a custom payment.

    The organisation's own price of a credit is used instead of the price book's, unless it is 0. Only a
    custom payment has `amount_minor` and `remark`, and it has no credits.

    Raises:
        InvalidInput: fewer credits than the minimum (with Pro, 0 is allowed), or more than one payment can
        be;
            or the plan does not allow or lacks an amount, credits or a remark;
            or auto top-up is out of range, or the plan does not allow it.
        ProAlreadyActive: the organisation has Pro.
        BilledByAgreement: the organisation has the Enterprise plan.
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
        ProAlreadyActive, BilledByAgreement: it is not for sale.
    """
    if organisation.plan is Plan.ENTERPRISE:
        raise BilledByAgreement
    if plan is PurchasePlan.PRO and not organisation.subscription.can_buy_pro(now):
        raise ProAlreadyActive


def custom_terms(amount_minor: int, organisation: Organisation, prices: Prices) -> PaymentTerms:
    """Return the terms of a custom payment of an amount without tax.

    Raises:
        InvalidInput: the total is less than gateways take, or more than one payment can be.
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
    """Check the input of a custom payment, and return its amount.

    Raises:
        InvalidInput: there is no amount, the remark is empty, or there are credits.
    """
    field_errors = ValidationErrors()
    if credits_count:
        field_errors.add("credits", "a custom payment adds no credits")
    if amount_minor is None:
        field_errors.add("amount_minor", "a custom payment needs an amount")
    if not (remark or "").strip():
        field_errors.add("remark", "a custom payment says what it is for")
    field_errors.check()
    assert amount_minor is not None
    return amount_minor


def _check_has_no_amount(amount_minor: int | None, remark: str | None) -> None:
    field_errors = ValidationErrors()
    if amount_minor is not None:
        field_errors.add("amount_minor", "only a custom payment has an amount")
    if remark is not None:
        field_errors.add("remark", "only a custom payment has a remark")
    field_errors.check()
