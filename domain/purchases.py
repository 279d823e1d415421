"""What a purchase would cost: quotes, which keep their price whatever changes until they expire."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from domain.auto_top_up import TopUpTerms
from domain.errors import BillingIsCustom, InvalidInput, ProAlready
from domain.facts import Plan
from domain.money import AMOUNT_MINOR_MAX, MINOR_UNITS, cost_of
from domain.organisation import CREDITS_MAX, Organisation
from domain.payment import Terms
from domain.payment_facts import PaymentKind
from domain.prices import Prices

QUOTE_LASTS: Final = timedelta(minutes=30)


class PurchasePlan(StrEnum):
    """What can be bought."""

    PAY_AS_YOU_GO = "pay_as_you_go"
    PRO = "pro"


class QuotedLine(msgspec.Struct, frozen=True):
    """A line of a quote, in minor units before tax; credits have a unit price, in millionths."""

    item: str
    credits: int
    unit_price_millionths: int | None
    amount_minor: int


class PurchaseQuote(msgspec.Struct, frozen=True):
    """What is to be paid, if it is before `expires_at`. Of the credits, `included` come with the plan.

    `top_up` is switched on when it is paid.
    """

    quote_id: str
    organisation_id: str
    plan: PurchasePlan
    terms: Terms
    included: int
    tax_per_cent: int
    quoted_at: datetime
    expires_at: datetime
    top_up: TopUpTerms | None = None

    @property
    def lines(self) -> list[QuotedLine]:
        """What it consists of."""
        terms, lines = self.terms, []
        if self.plan is PurchasePlan.PRO:
            lines.append(QuotedLine("pro", self.included, None, terms.fee_minor))
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
    prices: Prices,
    now: datetime,
    top_up: TopUpTerms | None = None,
) -> PurchaseQuote:
    """Return what credits, with or without a year of Pro, cost an organisation now.

    Its own price of a credit wins over the book's, unless it is 0.

    Raises:
        InvalidInput: fewer credits than the minimum, or more than can be paid. Beside Pro, none is fine too.
            Or auto top-up is not for sale with it, or out of range.
        ProAlready: Pro is not for sale while the organisation has it.
        BillingIsCustom: an Enterprise organisation pays by agreement.
    """
    check_may_buy(organisation, plan, now)
    is_pro = plan is PurchasePlan.PRO
    if top_up is not None:
        if is_pro:
            raise InvalidInput("plan", "auto top-up is switched on with a purchase of credits alone")
        top_up.check()
    if credits_count < prices.minimum_credits and not (is_pro and credits_count == 0):
        raise InvalidInput("credits", f"a purchase is of at least {prices.minimum_credits:,} credits")
    here = prices.of(organisation.currency)
    price_millionths = organisation.price_millionths or here.credit_price_millionths
    fee_minor = here.pro_fee_minor if is_pro else 0
    included = here.pro_credits if is_pro else 0
    credits_minor = cost_of(credits_count, price_millionths, 0).amount_minor
    cost = cost_of(credits_count, price_millionths, here.tax_per_cent, fee_minor=fee_minor)
    if credits_count > CREDITS_MAX or cost.total_minor > AMOUNT_MINOR_MAX:
        raise InvalidInput(
            "credits",
            f"these are more than one payment can be of: at most {organisation.currency.value}"
            f" {AMOUNT_MINOR_MAX // MINOR_UNITS:,}, tax included",
        )
    terms = Terms(
        PaymentKind.PRO if is_pro else PaymentKind.CREDITS,
        credits_count + included,
        price_millionths,
        credits_minor,
        fee_minor,
        cost.tax_minor,
        organisation.currency,
        prices.version,
    )
    return PurchaseQuote(
        quote_id,
        organisation.organisation_id,
        plan,
        terms,
        included,
        here.tax_per_cent,
        now,
        now + QUOTE_LASTS,
        top_up,
    )


def check_may_buy(organisation: Organisation, plan: PurchasePlan, now: datetime) -> None:
    """Check that a plan is for sale to an organisation.

    Raises:
        ProAlready, BillingIsCustom: it is not.
    """
    if organisation.plan is Plan.ENTERPRISE:
        raise BillingIsCustom
    if plan is PurchasePlan.PRO and not organisation.may_buy_pro(now):
        raise ProAlready


def custom_terms(amount_minor: int, organisation: Organisation, prices: Prices) -> Terms:
    """Return the terms of an amount that staff asks for; tax comes on top."""
    here = prices.of(organisation.currency)
    cost = cost_of(0, 0, here.tax_per_cent, fee_minor=amount_minor)
    return Terms(
        PaymentKind.CUSTOM, 0, 0, 0, amount_minor, cost.tax_minor, organisation.currency, prices.version
    )
