"""The Pro subscription (a plan): when it can be bought, when it is over, when it can come back."""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.pricing.plans import Plan


class Subscription(msgspec.Struct, frozen=True):
    """An organisation's plan and its end, None if it has none. It decides; the organisation records."""

    plan: Plan
    expires_at: datetime | None

    def can_buy_pro(self, now: datetime) -> bool:
        """Tell whether Pro is for sale: not while Pro runs, and not to a customer with an agreement."""
        if self.plan is Plan.PRO:
            return self.is_over(now)
        return self.plan is not Plan.ENTERPRISE

    def is_over(self, now: datetime) -> bool:
        """Tell whether Pro has reached its end."""
        return self.plan is Plan.PRO and self.expires_at is not None and self.expires_at <= now

    def is_ending_at(self, expires_at: datetime) -> bool:
        """Tell whether the plan is Pro with this end."""
        return self.plan is Plan.PRO and self.expires_at == expires_at

    def can_resume(self, expires_at: datetime, now: datetime) -> bool:
        """Tell whether Pro that was ended early can run again: no other plan was chosen and time is left."""
        return self.plan is Plan.PAY_AS_YOU_GO and expires_at > now
