"""Bodies and answers of flags of payments. Amounts are in minor units (cents, paise)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from api.http.bodies import Body
from api.http.fields import Identifier, Instant, Reason
from api.http.views import NextCursor, Position, View
from api.payments.schemas import PaymentIdField, Status
from domain.payments.events import Flag, PaymentKind
from domain.shared.money import AMOUNT_MINOR_MAX, Currency
from projections.payments.flag_queries import FlagRow

LaxFlag = Annotated[
    Flag, Field(strict=False, description="Why somebody has to look.", examples=["paid_twice"])
]


class SettleFlag(Body):
    """A flag that was dealt with: the flag, the attempt and the amount name it."""

    flag: LaxFlag
    gateway_payment_id: Identifier = Field(
        description="The gateway's id of the attempt that moved the money.", examples=["pay_29QQoUBi66xm2f"]
    )
    amount_minor: Annotated[int, Field(ge=0, le=AMOUNT_MINOR_MAX)] = Field(
        description="What it moved.", examples=[177_000]
    )
    note: Reason = Field(
        description="What was done about it; it is kept where it can be erased.",
        examples=["The payer keeps it for the next order."],
    )


class PaymentFlag(View):
    """What is odd about a payment: money that an attempt moved, and the payment that it is of."""

    organisation_id: str = Field(description="The organisation.", examples=["org-4711"])
    payment_id: PaymentIdField
    flag: Flag = Field(description="Why somebody has to look, or had to.", examples=["paid_twice"])
    gateway: str = Field(description="Where the money lies, or lay.", examples=["razorpay"])
    gateway_payment_id: str = Field(
        description="The gateway's id of the attempt that moved the money.", examples=["pay_29QQoUBi66xm2f"]
    )
    amount_minor: int = Field(description="What it moved.", examples=[177_000])
    currency: str = Field(description="In which currency.", examples=["INR"])
    flagged_at: Instant = Field(description="When it was flagged.")
    settled_at: Instant | None = Field(description="When it was settled; null while it is open.")
    settled_by: str | None = Field(description="Who settled it.", examples=[None])
    refund_id: str | None = Field(description="By which refund the money went back.", examples=[None])
    note: str | None = Field(description="What staff wrote when they settled it.", examples=[None])
    gives_back: bool = Field(
        description="Whether all that the attempt took can be given back: it paid for nothing.",
        examples=[True],
    )
    kind: PaymentKind = Field(description="What the payment is for.", examples=["credits"])
    status: Status
    order_id: str | None = Field(
        description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"]
    )
    paid_by: str | None = Field(
        description="The gateway's id of the attempt that paid it.", examples=["pay_29QQoUBi66xm2e"]
    )
    total_minor: int = Field(description="What was to be paid, tax included.", examples=[177_000])
    payment_currency: Currency = Field(description="The currency of the payment.", examples=["INR"])
    open_refunds: int = Field(
        description="Refunds of the payment that the gateway has not answered.", examples=[0]
    )

    @classmethod
    def of(cls, row: FlagRow, note: str | None) -> PaymentFlag:
        fields = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        return cls(**fields, note=note, gives_back=row.is_refundable)


class PaymentFlagPage(View):
    """Flags of all organisations, open ones first, the latest first."""

    flags: Sequence[PaymentFlag] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position
