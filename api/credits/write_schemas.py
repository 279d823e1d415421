"""Bodies of writes, and what they answer. Strict: no "5" for 5, no true for 1, no unknown field.

A null for a field that may be left out is the same as leaving it out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.http.bodies import Body
from api.http.fields import Credits, Gateway, Identifier, Instant, PriceMillionths, Reason, Version
from domain.credits import ledger
from domain.credits.ledger import TRIAL_CREDITS
from domain.credits.limits import CREDITS_MAX
from domain.pricing.plans import Plan
from domain.shared.command_runner import RecordedResult
from domain.shared.money import Currency

TimeZone = Annotated[
    Identifier,
    Field(description="An IANA time zone; days and months are counted in it.", examples=["Asia/Kolkata"]),
]
LaxCurrency = Annotated[Currency, Field(strict=False)]  # strict pydantic takes no text for an enum
LaxPlan = Annotated[Plan, Field(strict=False, description="The plan to move to.", examples=["pro"])]


class OpenOrganisation(Body):
    """An organisation to open, on the Trial plan."""

    time_zone: TimeZone
    currency: Annotated[
        LaxCurrency, Field(description="The currency it pays in, for good.", examples=["INR"])
    ]
    price_millionths: PriceMillionths | None = Field(
        default=None,
        description="The price of one credit, in millionths of the currency unit."
        " Without it, that of the price book: 20,000 ($0.02) or 1,500,000 (₹1.50) unless it was changed.",
        examples=[1_500_000],
    )
    trial_credits: Annotated[int, Field(ge=0, le=CREDITS_MAX)] | None = Field(
        default=None,
        description=f"Free credits to start with; {TRIAL_CREDITS} without it.",
        examples=[TRIAL_CREDITS],
    )


class Grant(Body):
    """Credits to give."""

    credits: Credits = Field(description="Credits to give.")
    kind: Literal["promotional", "admin"] = Field(
        description="What it shows as: free credits (promotional) or an admin grant.", examples=["admin"]
    )
    reason: Reason


class Purchase(Body):
    """Credits that were paid for, at the organisation's price of this moment."""

    credits: Credits = Field(description="Credits that were bought.", examples=[1_000])
    payment_id: Identifier = Field(
        description="The gateway's id of the payment; a payment adds its credits once.",
        examples=["pay_29QQoUBi66xm2f"],
    )
    order_id: Identifier = Field(
        description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"]
    )
    gateway: Gateway
    currency: LaxCurrency | None = Field(
        default=None, description="The currency it was paid in, if it is to be checked.", examples=["INR"]
    )


class Refund(Body):
    """Credits of a charge to return to the lots they came from."""

    charge: Version = Field(
        description="The version of the charge, as `transactions/{run_id}/charges` has it."
    )
    credits: Credits | None = Field(
        default=None,
        description="Credits to return; all that is left of the charge without it.",
        examples=[20],
    )
    reason: Reason


class PriceChange(Body):
    """A new price. What was bought stays as it was bought."""

    price_millionths: PriceMillionths


class PlanChange(Body):
    """Another plan."""

    plan: LaxPlan
    expires_at: Instant | None = Field(
        default=None, description="When the plan ends; never without it.", examples=["2027-11-22T00:00:00Z"]
    )


class TimeZoneChange(Body):
    """Another time zone for later charges; past days and months stay."""

    time_zone: TimeZone


class LowBalanceThreshold(Body):
    """When the balance counts as low."""

    credits: Annotated[int, Field(ge=0, le=CREDITS_MAX)] = Field(
        description="Below this many available credits; 0: never.", examples=[500]
    )


class Recorded(BaseModel):
    """What a write recorded, and what the organisation stands at after it."""

    organisation_id: str = Field(description="The organisation.", examples=["org-4711"])
    version: int = Field(
        description="Number of the event that this write recorded, in the organisation's history: a charge"
        " or an addition is named by it. What the write brought about may follow it.",
        examples=[17],
    )
    balance: int = Field(description="Credits after the write; may be below zero.", examples=[700])
    available: int = Field(description="The balance less open holds.", examples=[700])
    credits: int = Field(
        description="Credits that this write gave, sold or returned; 0 for a change of terms.", examples=[500]
    )
    amount_minor: int | None = Field(
        description="Of a purchase: its amount without tax, in minor units (cents, paise).", examples=[None]
    )
    tax_minor: int | None = Field(
        description="Of a purchase: tax on top of the amount, in minor units.", examples=[None]
    )
    currency: Currency | None = Field(description="Of a purchase: the currency paid in.", examples=[None])
    position: int = Field(
        description="Log position of the write: pass it as `min_position` to read what you wrote.",
        examples=[1042],
    )

    @classmethod
    def of(cls, result: RecordedResult[ledger.CommandResult]) -> Recorded:
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
