"""Bodies and answers of purchases and payments. Amounts are in minor units (cents, paise)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.http.bodies import Body
from api.http.fields import Credits, Gateway, Identifier, Instant, Name
from api.http.views import NextCursor, Position, View
from domain.credits.auto_top_up import THRESHOLD_MAX, TOP_UPS_PER_DAY_MAX, TopUpTerms
from domain.credits.limits import CREDITS_MAX
from domain.payments.events import Flag, PaymentKind, PaymentStatus
from domain.payments.quotes import PurchasePlan, PurchaseQuote
from domain.payments.refunds import AttemptRefund, CreditRefund, FeeRefund, RefundRequest
from domain.payments.repository import PaymentResult
from domain.shared.errors import InvalidInput
from domain.shared.money import AMOUNT_MINOR_MAX, Currency

LaxPlan = Annotated[PurchasePlan, Field(strict=False)]
AmountMinor = Annotated[int, Field(examples=[150_000])]
RequestedAmount = Annotated[int, Field(ge=1, le=AMOUNT_MINOR_MAX)]
Status = Annotated[PaymentStatus, Field(description="Where it stands.", examples=["completed"])]
PaymentIdField = Annotated[str, Field(description="The payment.", examples=["payment-0198f0c2"])]


class AutoTopUpRequest(Body):
    """When to buy as many credits again, by itself, with the payer's card."""

    threshold: Annotated[int, Field(ge=1, le=THRESHOLD_MAX)] = Field(
        description="When fewer credits than this are available.", examples=[200]
    )
    per_day: Annotated[int, Field(ge=1, le=TOP_UPS_PER_DAY_MAX)] = Field(
        default=1, description="How often at most on a day of the organisation's zone.", examples=[1]
    )


class PurchaseQuoteRequest(Body):
    """What is to be bought."""

    plan: LaxPlan = Field(
        default=PurchasePlan.PAY_AS_YOU_GO,
        description="pay_as_you_go: credits alone. pro: a year of Pro, with or without credits."
        " custom: an amount and what it is for.",
        examples=["pay_as_you_go"],
    )
    credits: Annotated[int, Field(ge=0, le=CREDITS_MAX)] = Field(
        default=0,
        description="Credits to buy: at least the minimum, or with Pro none; with custom none.",
        examples=[1_000],
    )
    amount_minor: RequestedAmount | None = Field(
        default=None,
        description="Of custom: the amount in minor units; tax comes on top. With it, at least 100:"
        " gateways take no less.",
        examples=[None],
    )
    remark: Name | None = Field(
        default=None,
        description="Of custom: what it is for; it is kept where it can be erased.",
        examples=[None],
    )
    auto_top_up: AutoTopUpRequest | None = Field(
        default=None,
        description="Without Pro: have the same bought by itself from then on. It is switched on when this is"
        " paid, and never charges the card more than this costs.",
        examples=[None],
    )

    @property
    def top_up(self) -> TopUpTerms | None:
        """What is switched on with it, as the ledger takes it."""
        asked = self.auto_top_up
        return None if asked is None else TopUpTerms(self.credits, asked.threshold, asked.per_day)


class QuotedTopUp(View):
    """When as many credits are bought again, by itself, once it is paid."""

    threshold: int = Field(description="When fewer credits than this are available.", examples=[200])
    per_day: int = Field(description="How often at most on a day of the organisation's zone.", examples=[1])


class QuotedLine(View):
    """A line of a quote, before tax."""

    item: Literal["credits", "pro", "custom"] = Field(description="What it is.", examples=["credits"])
    credits: int = Field(description="Credits that it adds.", examples=[1_000])
    unit_price_millionths: int | None = Field(
        description="Of credits: the price of one, in millionths of the currency unit.", examples=[1_500_000]
    )
    amount_minor: AmountMinor = Field(description="What it costs.")


class QuotedPurchase(View):
    """What a purchase costs. A payment made from it in time costs the same, whatever changes meanwhile."""

    quote_id: str = Field(description="The quote: a payment names it.", examples=["0198f0c2-6b7e-7c3a"])
    plan: PurchasePlan = Field(description="What is bought.")
    lines: Sequence[QuotedLine] = Field(description="What it consists of.")
    credits: int = Field(description="Credits that it adds in all.", examples=[1_000])
    amount_minor: AmountMinor = Field(description="What the lines cost.")
    tax_per_cent: int = Field(description="Tax on top of it.", examples=[18])
    tax_minor: int = Field(description="The same as an amount.", examples=[27_000])
    total_minor: int = Field(description="What is to be paid.", examples=[177_000])
    currency: Currency = Field(description="The currency of all amounts.", examples=["INR"])
    price_version: str = Field(description="The prices it is made at.", examples=["published-1"])
    remark: str | None = Field(description="Of custom: what it is for.", examples=[None])
    auto_top_up: QuotedTopUp | None = Field(
        description="The auto top-up that it switches on; null where it switches none on.", examples=[None]
    )
    expires_at: Instant = Field(description="Payments can be made from it until then.")
    position: Position

    @classmethod
    def of(cls, quote: PurchaseQuote, position: int) -> QuotedPurchase:
        terms = quote.terms
        return cls(
            quote_id=quote.quote_id,
            plan=quote.plan,
            lines=[QuotedLine.model_validate(line) for line in quote.lines],
            credits=terms.credits,
            amount_minor=terms.amount_minor,
            tax_per_cent=quote.tax_per_cent,
            tax_minor=terms.tax_minor,
            total_minor=terms.total_minor,
            currency=terms.currency,
            price_version=terms.price_version,
            remark=quote.remark,
            auto_top_up=None if quote.top_up is None else QuotedTopUp.model_validate(quote.top_up),
            expires_at=quote.expires_at,
            position=position,
        )


class BeginPayment(Body):
    """A quote to pay."""

    quote_id: Identifier = Field(description="The quote.", examples=["0198f0c2-6b7e-7c3a"])
    gateway: Gateway


class BeginCustomPayment(Body):
    """An amount to ask for."""

    amount_minor: RequestedAmount = Field(
        description="The amount in minor units; tax comes on top. With it, at least 100: gateways take"
        " no less.",
        examples=[500_000],
    )
    remark: Name = Field(
        description="What it is for; it is kept where it can be erased.", examples=["Banner"]
    )
    gateway: Gateway


class RefundPayment(Body):
    """What is to go back: credits with their money, an amount, or all that an attempt took."""

    credits: Credits | None = Field(
        default=None,
        description="Credits of a purchase to take back; all that are unspent where nothing is said.",
        examples=[400],
    )
    amount_minor: Annotated[int, Field(ge=1, le=AMOUNT_MINOR_MAX)] | None = Field(
        default=None,
        description="Of a plan's fee or a custom payment: how much, without tax, whose share goes with it.",
        examples=[None],
    )
    gateway_payment_id: Identifier | None = Field(
        default=None,
        description="Of an attempt that is flagged, because it pays for nothing: the gateway's id.",
        examples=[None],
    )

    def to_refund_request(self) -> RefundRequest:
        """Return it in the ledger's words.

        Raises:
            InvalidInput: more than one of them is said.
        """
        said = [
            name
            for name in ("credits", "amount_minor", "gateway_payment_id")
            if getattr(self, name) is not None
        ]
        if len(said) > 1:
            raise InvalidInput(said[1], f"leave it out beside {said[0]}: a refund is of one of them")
        if self.amount_minor is not None:
            return FeeRefund(self.amount_minor)
        if self.gateway_payment_id is not None:
            return AttemptRefund(self.gateway_payment_id)
        return CreditRefund(self.credits)


class EmptyBody(Body):
    """Nothing is to be said."""


class Checkout(View):
    """How a browser gets to the gateway's page: a form to send there; without fields, GET is a plain link."""

    url: str = Field(description="Where to.", examples=["https://api.example/checkout/order_9A33XWu170gUtm"])
    method: Literal["GET", "POST"] = Field(description="How.", examples=["POST"])
    fields: Mapping[str, str] = Field(description="The form's fields.", examples=[{}])


class PaymentRecorded(BaseModel):
    """A payment after a write."""

    payment_id: PaymentIdField
    status: Status
    order_id: str | None = Field(
        description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"]
    )
    gateway_payment_id: str | None = Field(description="The gateway's id of what paid it.", examples=[None])
    total_minor: int = Field(description="What is to be paid, tax included.", examples=[177_000])
    currency: Currency = Field(description="The currency of the amount.", examples=["INR"])
    checkout: Checkout | None = Field(description="The way to the gateway's page, while it can be paid.")
    refund_id: str | None = Field(description="Of a refund: its id.", examples=[None])
    position: Position

    @classmethod
    def of(cls, standing: PaymentResult) -> PaymentRecorded:
        payment = standing.payment
        return cls(
            payment_id=payment.terms.payment_id,
            status=payment.status,
            order_id=payment.order_id,
            gateway_payment_id=payment.gateway_payment_id,
            total_minor=payment.terms.total_minor,
            currency=payment.terms.currency,
            checkout=None if standing.checkout is None else Checkout.model_validate(standing.checkout),
            refund_id=standing.refund_id,
            position=standing.position,
        )


class Payment(View):
    """A payment."""

    payment_id: PaymentIdField
    kind: PaymentKind = Field(description="What it is for.", examples=["credits"])
    status: Status
    reason: str | None = Field(description="Why it failed or was abandoned, in a code.", examples=[None])
    flag: Flag | None = Field(description="Why somebody has to look at it, if they have.", examples=[None])
    gateway: str = Field(description="Who takes the money.", examples=["razorpay"])
    order_id: str | None = Field(
        description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"]
    )
    gateway_payment_id: str | None = Field(
        description="The gateway's id of what paid it.", examples=["pay_29QQoUBi66xm2f"]
    )
    credits: int = Field(description="Credits that it adds.", examples=[1_000])
    unit_price_millionths: int = Field(
        description="Price of one credit, in millionths of the currency unit.", examples=[1_500_000]
    )
    credits_minor: int = Field(description="Of the amount, what credits cost.", examples=[150_000])
    fee_minor: int = Field(description="Of the amount, what a plan or a custom payment costs.", examples=[0])
    amount_minor: AmountMinor = Field(description="The amount without tax.")
    tax_minor: int = Field(description="Tax on top of it.", examples=[27_000])
    total_minor: int = Field(description="What the payer pays.", examples=[177_000])
    currency: Currency = Field(description="The currency of all amounts.", examples=["INR"])
    price_version: str = Field(description="The prices it was made at.", examples=["published-1"])
    refunded_credits: int = Field(description="Credits that were taken back.", examples=[0])
    refunded_minor: int = Field(description="Money that went back, tax included.", examples=[0])
    open_refunds: int = Field(description="Refunds that the gateway has not answered.", examples=[0])
    remark: str | None = Field(
        default=None, description="Of a custom payment: what it is for.", examples=[None]
    )
    requested_by: str | None = Field(description="Who began it.", examples=["u-17"])
    created_at: Instant = Field(description="When it began.")
    completed_at: Instant | None = Field(description="When it was paid; null until then.")
    version: int = Field(description="Number of its latest event, in its own history.", examples=[3])


class PaymentPage(View):
    """Payments, newest first."""

    payments: Sequence[Payment] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position


class OnePayment(View):
    """One payment."""

    payment: Payment = Field(description="The payment.")
    position: Position
