"""Request and response bodies of writes. Requests are strict: no "5" for 5, no true for 1, no unknown field.

A null in an optional field means the same as an absent field.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.http.bodies import Body
from api.http.fields import Credits, Gateway, Identifier, Instant, PriceMillionths, Reason, Version
from domain.credits.command_result import CommandResult
from domain.credits.commands import TRIAL_CREDITS
from domain.credits.limits import CREDITS_MAX
from domain.pricing.plans import Plan
from domain.shared.command_runner import RecordedResult
from domain.shared.money import Currency

TimeZone = Annotated[
    Identifier,
    Field(description="The IANA time zone of days and months.", examples=["Asia/Kolkata"]),
]
LaxCurrency = Annotated[Currency, Field(strict=False)]  # strict pydantic refuses a string for an enum
LaxPlan = Annotated[Plan, Field(strict=False, description="The plan to move to.", examples=["pro"])]


class OpenOrganisation(Body):
    """A new organisation on the Trial plan."""

    time_zone: TimeZone
    currency: Annotated[
        LaxCurrency, Field(description="The currency of its payments. It never changes.", examples=["INR"])
    ]
    price_millionths: PriceMillionths | None = Field(
        default=None,
        description="The price of one credit, in millionths of the currency unit."
        " Default: the price of the price book, 20,000 ($0.02) or 1,500,000 (₹1.50) unless that was changed.",
        examples=[1_500_000],
    )
    trial_credits: Annotated[int, Field(ge=0, le=CREDITS_MAX)] | None = Field(
        default=None,
        description=f"Free credits at the start. Default: {TRIAL_CREDITS}.",
        examples=[TRIAL_CREDITS],
    )


class Grant(Body):
    """A grant of credits."""

    credits: Credits = Field(description="Credits to grant.")
    kind: Literal["promotional", "admin"] = Field(
        description="Shown as free credits (`promotional`) or as an admin grant (`admin`).",
        examples=["admin"],
    )
    reason: Reason


class Purchase(Body):
    """Credits that were paid for, at the organisation's current price."""

    credits: Credits = Field(description="Credits that were bought.", examples=[1_000])
    payment_id: Identifier = Field(
        description="The gateway's id of the payment. A payment adds its credits only once.",
        examples=["pay_29QQoUBi66xm2f"],
    )
    order_id: Identifier = Field(
        description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"]
    )
    gateway: Gateway
    currency: LaxCurrency | None = Field(
        default=None, description="The currency of the payment, to be checked.", examples=["INR"]
    )


class Refund(Body):
    """Credits of a charge to return to their lots."""

    charge: Version = Field(description="The version of the charge: see `transactions/{run_id}/charges`.")
    credits: Credits | None = Field(
        default=None,
        description="Credits to return. Default: all credits of the charge that were not refunded yet.",
        examples=[20],
    )
    reason: Reason


class PriceChange(Body):
    """A new price. Past purchases keep their price."""

    price_millionths: PriceMillionths


class PlanChange(Body):
    """Body of a plan change."""

    plan: LaxPlan
    expires_at: Instant | None = Field(
        default=None, description="When the plan expires. Default: never.", examples=["2027-11-22T00:00:00Z"]
    )


class TimeZoneChange(Body):
    """A new time zone for later charges. Past days and months do not change."""

    time_zone: TimeZone


class LowBalanceThreshold(Body):
    """The threshold of a low balance."""

    credits: Annotated[int, Field(ge=0, le=CREDITS_MAX)] = Field(
        description="The balance is low below this number of available credits; 0 means never.",
        examples=[500],
    )


class Recorded(BaseModel):
    """What a write recorded, with the organisation's credits after it."""

    organisation_id: str = Field(description="The organisation.", examples=["org-4711"])
    version: int = Field(
        description="Version of the event that this write recorded, in the organisation's history. It"
        " identifies a charge or an addition. Further events of the same write may follow it.",
        examples=[17],
    )
    balance: int = Field(description="Credits after the write; may be below zero.", examples=[700])
    available: int = Field(description="The balance minus open holds.", examples=[700])
    credits: int = Field(
        description="Credits that this write granted, sold or returned; 0 for a change of terms.",
        examples=[500],
    )
    amount_minor: int | None = Field(
        description="For a purchase: amount excluding tax, in minor units (cents, paise).", examples=[None]
    )
    tax_minor: int | None = Field(
        description="For a purchase: tax on top of the amount, in minor units.", examples=[None]
    )
    currency: Currency | None = Field(description="For a purchase: its currency.", examples=[None])
    position: int = Field(
        description="Log position of the write. Pass it as `min_position` to read your own write.",
        examples=[1042],
    )

    @classmethod
    def of(cls, result: RecordedResult[CommandResult]) -> Recorded:
        recorded = result.value
        return cls(
            organisation_id=recorded.organisation_id,
            version=recorded.version,
            balance=recorded.balance,
            available=recorded.available,
            credits=recorded.credits,
            amount_minor=recorded.amount_minor,
            tax_minor=recorded.tax_minor,
            currency=Currency(recorded.currency) if recorded.currency else None,
            position=result.position,
        )
