"""Decisions on holds: place, settle, release, expire. They return events; `Organisation` applies them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from domain.credits.errors import HoldConflict, HoldNotFound, InsufficientCredits
from domain.credits.events import HoldExpired, HoldPlaced, HoldReleased, HoldSettled
from domain.credits.holds import HOLD_PREFIX, Hold, HoldMode, HoldRequest, Settlement, SettlementKey
from domain.credits.limits import SETTLEMENT_SOURCE
from domain.credits.usage import Usage, UsageReport, User
from domain.pricing.rate_card import UsageType
from domain.shared.command_context import HeaderFields


class HoldBook(msgspec.Struct, frozen=True, gc=False):
    """Decides on the open holds (by run) and the settlements of an organisation. `Organisation` records."""

    holds: Mapping[str, Hold]
    settlements: Mapping[SettlementKey, Settlement]

    def find(self, hold_id: str) -> Hold:
        """Return an open hold.

        Raises:
            HoldNotFound: no open hold has this id.
        """
        for hold in self.holds.values():
            if hold.hold_id == hold_id:
                return hold
        raise HoldNotFound(hold_id=hold_id)

    def place(
        self,
        header: HeaderFields,
        wanted: HoldRequest,
        expires_at: datetime,
        *,
        version: int,
        available: int,
        reported: Mapping[UsageType, int],
    ) -> HoldPlaced | None:
        """Decide a hold: all that is requested, or what is available. None: the run has this hold already.

        `version` is the version that the event will have.

        Raises:
            HoldConflict: the run has an open hold of another request.
            InsufficientCredits: less is available than requested, or nothing at all.
        """
        held = self.holds.get(wanted.run_id)
        if held is not None:
            if held.request != wanted:
                raise HoldConflict(hold_id=held.hold_id)
            return None
        usable = max(available, 0)
        if wanted.credits > usable and (wanted.mode is HoldMode.ALL_OR_NOTHING or usable == 0):
            raise InsufficientCredits(
                f"{wanted.credits:,} credits were requested and {usable:,} are available",
                available=available,
                requested=wanted.credits,
            )
        credits_count = min(wanted.credits, usable)
        hold_id = f"{HOLD_PREFIX}{version}"
        return HoldPlaced(*header, hold_id, wanted, credits_count, expires_at, dict(reported))

    def release(self, header: HeaderFields, hold_id: str) -> HoldReleased:
        """Free what is left of a hold.

        Raises:
            HoldNotFound: no open hold has this id.
        """
        hold = self.find(hold_id)
        return HoldReleased(*header, hold_id, hold.request.run_id, hold.remaining)

    def settle(
        self, header: HeaderFields, hold_id: str, usage_type: UsageType, photos: int, unreported_photos: int
    ) -> HoldSettled:
        """Close a hold whose unreported photos have been charged, and free what is left of it."""
        hold = self.find(hold_id)
        return HoldSettled(
            *header, hold_id, hold.request.run_id, usage_type, photos, unreported_photos, hold.remaining
        )

    def expire(self, now: datetime, cause: str) -> list[HoldExpired]:
        """Free the holds that have reached their end."""
        return [
            HoldExpired(now, None, cause, hold.hold_id, hold.request.run_id, hold.remaining)
            for hold in self.holds.values()
            if hold.expires_at <= now
        ]

    def photos_already_settled(self, usage: Usage) -> int:
        """Return how many photos of a message the settlement of its run has charged."""
        settlement = self.settlements.get((usage.run_id, usage.usage_type))
        return 0 if settlement is None else min(usage.photos, settlement.photos)

    def credits_from_hold(self, usage: Usage, credits_count: int) -> int:
        """Return how many credits of a charge come from the hold it names: the hold must be of its run."""
        hold = self.holds.get(usage.run_id)
        if hold is None or hold.hold_id != usage.hold_id:
            return 0
        return min(hold.remaining, credits_count)


def settlement_report(
    hold: Hold, organisation_id: str, at: datetime, usage_type: UsageType, photos: int, *, ai_search: bool
) -> UsageReport:
    """Return the report of photos that a settlement charges: no message has reported them."""
    wanted = hold.request
    user = None if wanted.user is None else User(wanted.user)
    usage = Usage(wanted.run_id, usage_type, photos, ai_search, hold.photo_event, user, hold.hold_id)
    return UsageReport.of(SETTLEMENT_SOURCE, hold.hold_id, organisation_id, at, usage)
