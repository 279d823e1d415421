"""Request and response bodies of payment flags. Amounts are in minor units (cents, paise)."""

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

LaxFlag = Annotated[Flag, Field(strict=False, description="The kind of flag.", examples=["paid_twice"])]


class SettleFlag(Body):
    """A flag to settle. The kind, the attempt and the amount identify it."""

    flag: LaxFlag
    gateway_payment_id: Identifier = Field(
        description="The gateway's id of the attempt that moved the money.", examples=["pay_29QQoUBi66xm2f"]
    )
    amount_minor: Annotated[int, Field(ge=0, le=AMOUNT_MINOR_MAX)] = Field(
        description="The amount of the attempt.", examples=[177_000]
    )
    note: Reason = Field(
        description="How the flag was resolved. The note is stored where it can be erased.",
        examples=["The payer wants to use the amount for the next order."],
    )


class PaymentFlag(View):
    """A flag of a payment: an attempt moved money in a way that needs a review."""

    organisation_id: str = Field(description="The organisation.", examples=["org-4711"])
    payment_id: PaymentIdField
    flag: Flag = Field(description="The kind of flag.", examples=["paid_twice"])
    gateway: str = Field(description="The gateway that has the money.", examples=["razorpay"])
    gateway_payment_id: str = Field(
        description="The gateway's id of the attempt that moved the money.", examples=["pay_29QQoUBi66xm2f"]
    )
    amount_minor: int = Field(description="The amount of the attempt.", examples=[177_000])
    currency: str = Field(description="The currency of that amount.", examples=["INR"])
    flagged_at: Instant = Field(description="When the flag was raised.")
    settled_at: Instant | None = Field(description="When the flag was settled; null while it is open.")
    settled_by: str | None = Field(description="Who settled the flag.", examples=[None])
    refund_id: str | None = Field(description="The refund that returned the money.", examples=[None])
    note: str | None = Field(description="The note of the settlement.", examples=[None])
    gives_back: bool = Field(
        description="Whether the whole amount of the attempt can be refunded, because it paid for nothing.",
        examples=[True],
    )
    kind: PaymentKind = Field(description="The purpose of the payment.", examples=["credits"])
    status: Status
    order_id: str | None = Field(
        description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"]
    )
    paid_by: str | None = Field(
        description="The gateway's id of the attempt that completed the payment.",
        examples=["pay_29QQoUBi66xm2e"],
    )
    total_minor: int = Field(description="The amount of the payment, including tax.", examples=[177_000])
    payment_currency: Currency = Field(description="The currency of the payment.", examples=["INR"])
    open_refunds: int = Field(
        description="Refunds of the payment that the gateway has not confirmed or refused.", examples=[0]
    )

    @classmethod
    def of(cls, row: FlagRow, note: str | None) -> PaymentFlag:
        fields = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        return cls(**fields, note=note, gives_back=row.is_refundable)


class PaymentFlagPage(View):
    """Flags of all organisations: open flags first, then newest first."""

    flags: Sequence[PaymentFlag] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position
