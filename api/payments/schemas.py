"""Request and response bodies of purchases and payments. Amounts are in minor units (cents, paise)."""

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
Status = Annotated[PaymentStatus, Field(description="The status of the payment.", examples=["completed"])]
PaymentIdField = Annotated[str, Field(description="The payment.", examples=["payment-0198f0c2"])]


class AutoTopUpRequest(Body):
    """Auto top-up: when to buy the same credits again automatically, with the payer's card."""

    threshold: Annotated[int, Field(ge=1, le=THRESHOLD_MAX)] = Field(
        description="A top-up starts when fewer credits than this are available.", examples=[200]
    )
    per_day: Annotated[int, Field(ge=1, le=TOP_UPS_PER_DAY_MAX)] = Field(
        default=1, description="Top-ups per day, in the organisation's time zone.", examples=[1]
    )


class PurchaseQuoteRequest(Body):
    """The purchase to quote."""

    plan: LaxPlan = Field(
        default=PurchasePlan.PAY_AS_YOU_GO,
        description="`pay_as_you_go`: credits only. `pro`: a year of Pro, with or without credits."
        " `custom`: an amount and its purpose.",
        examples=["pay_as_you_go"],
    )
    credits: Annotated[int, Field(ge=0, le=CREDITS_MAX)] = Field(
        default=0,
        description="Credits to buy, at least the minimum. May be 0 with `pro`, must be 0 with `custom`.",
        examples=[1_000],
    )
    amount_minor: RequestedAmount | None = Field(
        default=None,
        description="For `custom`: the amount in minor units, excluding tax. The total with tax must be at"
        " least 100, the minimum of the gateways.",
        examples=[None],
    )
    remark: Name | None = Field(
        default=None,
        description="For `custom`: the purpose. It is stored where it can be erased.",
        examples=[None],
    )
    auto_top_up: AutoTopUpRequest | None = Field(
        default=None,
        description="Not with `pro`: buy the same credits again automatically. Auto top-up is switched on"
        " when the payment completes. It never charges the card more than this purchase costs.",
        examples=[None],
    )

    @property
    def top_up(self) -> TopUpTerms | None:
        """The terms of the requested auto top-up."""
        request = self.auto_top_up
        return None if request is None else TopUpTerms(self.credits, request.threshold, request.per_day)


class QuotedTopUp(View):
    """The auto top-up of a quote: it buys the same credits again, after the payment completes."""

    threshold: int = Field(description="A top-up starts below this number of credits.", examples=[200])
    per_day: int = Field(description="Top-ups per day, in the organisation's time zone.", examples=[1])


class QuotedLine(View):
    """A line of a quote, excluding tax."""

    item: Literal["credits", "pro", "custom"] = Field(description="The item.", examples=["credits"])
    credits: int = Field(description="Credits that are added.", examples=[1_000])
    unit_price_millionths: int | None = Field(
        description="For credits: price of one credit, in millionths of the currency unit.",
        examples=[1_500_000],
    )
    amount_minor: AmountMinor = Field(description="Amount of the line, excluding tax.")


class QuotedPurchase(View):
    """The cost of a purchase. A payment for an unexpired quote costs the same, even if prices change."""

    quote_id: str = Field(description="The quote. A payment refers to it.", examples=["0198f0c2-6b7e-7c3a"])
    plan: PurchasePlan = Field(description="The purchased plan.")
    lines: Sequence[QuotedLine] = Field(description="The lines.")
    credits: int = Field(description="Credits that are added, in total.", examples=[1_000])
    amount_minor: AmountMinor = Field(description="Total of the lines, excluding tax.")
    tax_per_cent: int = Field(description="Tax rate, in per cent.", examples=[18])
    tax_minor: int = Field(description="Amount of the tax.", examples=[27_000])
    total_minor: int = Field(description="Amount to pay, including tax.", examples=[177_000])
    currency: Currency = Field(description="The currency of all amounts.", examples=["INR"])
    price_version: str = Field(description="Version of the prices.", examples=["published-1"])
    remark: str | None = Field(description="For `custom`: the purpose.", examples=[None])
    auto_top_up: QuotedTopUp | None = Field(
        description="The auto top-up that the purchase switches on; null: none.", examples=[None]
    )
    expires_at: Instant = Field(description="When the quote expires.")
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
    """A custom payment to request."""

    amount_minor: RequestedAmount = Field(
        description="The amount in minor units, excluding tax. The total with tax must be at least 100, the"
        " minimum of the gateways.",
        examples=[500_000],
    )
    remark: Name = Field(description="The purpose. It is stored where it can be erased.", examples=["Banner"])
    gateway: Gateway


class RefundPayment(Body):
    """The refund: credits with their price, an amount, or the whole amount of an attempt."""

    credits: Credits | None = Field(
        default=None,
        description="Credits of a purchase to refund. Default: all unspent credits.",
        examples=[400],
    )
    amount_minor: Annotated[int, Field(ge=1, le=AMOUNT_MINOR_MAX)] | None = Field(
        default=None,
        description="For a plan's fee or a custom payment: the amount excluding tax. Its tax is refunded,"
        " too.",
        examples=[None],
    )
    gateway_payment_id: Identifier | None = Field(
        default=None,
        description="For a flagged attempt that paid for nothing: the gateway's id.",
        examples=[None],
    )

    def to_refund_request(self) -> RefundRequest:
        """Return the domain's refund request.

        Raises:
            InvalidInput: more than one of the fields is set.
        """
        fields = [
            name
            for name in ("credits", "amount_minor", "gateway_payment_id")
            if getattr(self, name) is not None
        ]
        if len(fields) > 1:
            raise InvalidInput(fields[1], f"not allowed together with {fields[0]}: send only one of them")
        if self.amount_minor is not None:
            return FeeRefund(self.amount_minor)
        if self.gateway_payment_id is not None:
            return AttemptRefund(self.gateway_payment_id)
        return CreditRefund(self.credits)


class EmptyBody(Body):
    """An empty object."""


class Checkout(View):
    """The gateway's page for the payer: a form to submit there, or a plain link for GET without fields."""

    url: str = Field(
        description="The URL of the page.", examples=["https://api.example/checkout/order_9A33XWu170gUtm"]
    )
    method: Literal["GET", "POST"] = Field(description="The HTTP method.", examples=["POST"])
    fields: Mapping[str, str] = Field(description="The fields of the form.", examples=[{}])


class PaymentRecorded(BaseModel):
    """A payment after a write."""

    payment_id: PaymentIdField
    status: Status
    order_id: str | None = Field(
        description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"]
    )
    gateway_payment_id: str | None = Field(
        description="The gateway's id of the completing attempt.", examples=[None]
    )
    total_minor: int = Field(description="Amount to pay, including tax.", examples=[177_000])
    currency: Currency = Field(description="The currency of the amount.", examples=["INR"])
    checkout: Checkout | None = Field(description="The gateway's page, while the payment can be paid.")
    refund_id: str | None = Field(description="For a refund: its id.", examples=[None])
    position: Position

    @classmethod
    def of(cls, result: PaymentResult) -> PaymentRecorded:
        payment = result.payment
        return cls(
            payment_id=payment.terms.payment_id,
            status=payment.status,
            order_id=payment.order_id,
            gateway_payment_id=payment.gateway_payment_id,
            total_minor=payment.terms.total_minor,
            currency=payment.terms.currency,
            checkout=None if result.checkout is None else Checkout.model_validate(result.checkout),
            refund_id=result.refund_id,
            position=result.position,
        )


class Payment(View):
    """A payment."""

    payment_id: PaymentIdField
    kind: PaymentKind = Field(description="The purpose of the payment.", examples=["credits"])
    status: Status
    reason: str | None = Field(description="Code of the failure or abandonment.", examples=[None])
    flag: Flag | None = Field(description="The open flag; null: none.", examples=[None])
    gateway: str = Field(description="The payment gateway.", examples=["razorpay"])
    order_id: str | None = Field(
        description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"]
    )
    gateway_payment_id: str | None = Field(
        description="The gateway's id of the completing attempt.", examples=["pay_29QQoUBi66xm2f"]
    )
    credits: int = Field(description="Credits that are added.", examples=[1_000])
    unit_price_millionths: int = Field(
        description="Price of one credit, in millionths of the currency unit.", examples=[1_500_000]
    )
    credits_minor: int = Field(description="Part of the amount for credits.", examples=[150_000])
    fee_minor: int = Field(description="Part of the amount for a plan or a custom payment.", examples=[0])
    amount_minor: AmountMinor = Field(description="Amount excluding tax.")
    tax_minor: int = Field(description="Amount of the tax.", examples=[27_000])
    total_minor: int = Field(description="Amount including tax.", examples=[177_000])
    currency: Currency = Field(description="The currency of all amounts.", examples=["INR"])
    price_version: str = Field(description="Version of the prices.", examples=["published-1"])
    refunded_credits: int = Field(description="Credits that were refunded.", examples=[0])
    refunded_minor: int = Field(description="Refunded amount, including tax.", examples=[0])
    open_refunds: int = Field(
        description="Refunds that the gateway has not confirmed or refused.", examples=[0]
    )
    remark: str | None = Field(
        default=None, description="For a custom payment: the purpose.", examples=[None]
    )
    requested_by: str | None = Field(description="Who created the payment.", examples=["u-17"])
    created_at: Instant = Field(description="When the payment was created.")
    completed_at: Instant | None = Field(description="When the payment completed; null until then.")
    version: int = Field(description="Version of the payment's latest event.", examples=[3])


class PaymentPage(View):
    """Payments, newest first."""

    payments: Sequence[Payment] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position


class OnePayment(View):
    """One payment."""

    payment: Payment = Field(description="The payment.")
    position: Position
