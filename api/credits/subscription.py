"""The subscription: texts about an organisation's plan and its expiry."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import Field

from api.http.fields import Instant
from api.http.views import Position, View
from domain.pricing.plans import Plan
from projections.credits.read_models import Balance

NOTICE_BEFORE_END: Final = timedelta(days=30)

PLAN_NAMES: Final = {
    Plan.TRIAL: "Trial",
    Plan.PAY_AS_YOU_GO: "Pay As You Go",
    Plan.PRO: "Pro",
    Plan.ENTERPRISE: "Enterprise",
}
_DESCRIPTIONS: Final = {
    Plan.TRIAL: "Free credits to start with. The first purchase changes the plan to Pay As You Go. You keep"
    " the remaining credits.",
    Plan.PAY_AS_YOU_GO: "Flexible usage-based pricing with no commitment.",
    Plan.PRO: "A subscription of 365 days. It does not renew automatically.",
    Plan.ENTERPRISE: "Individual terms for this organisation.",
}
_NO_EXPIRY: Final = "No expiry date set. Your plan does not have a fixed expiry."


class Subscription(View):
    """An organisation's plan, with the texts that its members see."""

    plan: Plan = Field(description="The plan.", examples=["pay_as_you_go"])
    name: str = Field(description="The plan's name.", examples=["Pay As You Go"])
    description: str = Field(
        description="What the plan offers.", examples=[_DESCRIPTIONS[Plan.PAY_AS_YOU_GO]]
    )
    expires_at: Instant | None = Field(description="When it expires; null means never.", examples=[None])
    expiry: str = Field(
        description="The expiry as a sentence, in the organisation's time zone.", examples=[_NO_EXPIRY]
    )
    ends_soon: bool = Field(description="True from 30 days before the expiry.", examples=[False])
    position: Position

    @classmethod
    def of(cls, balance: Balance, now: datetime) -> Subscription:
        """Return the subscription at a time."""
        ends_at = balance.plan_expires_at
        return cls(
            plan=balance.plan,
            name=PLAN_NAMES[balance.plan],
            description=_DESCRIPTIONS[balance.plan],
            expires_at=ends_at,
            expiry=_NO_EXPIRY if ends_at is None else _sentence(ends_at, now, balance.time_zone),
            ends_soon=ends_at is not None and now >= ends_at - NOTICE_BEFORE_END,
            position=balance.position,
        )


def _sentence(ends_at: datetime, now: datetime, time_zone: str) -> str:
    verb = "Expires" if ends_at > now else "Expired"
    return f"{verb} on {ends_at.astimezone(ZoneInfo(time_zone)):%Y-%m-%d}."
