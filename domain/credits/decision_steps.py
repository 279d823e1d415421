"""The base of `Organisation`: the steps that all decisions share (begin, record, collect)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from domain.credits.events import BalanceWentLow, CreditsExhausted, CreditsReplenished, HoldExpired
from domain.credits.hold_book import HoldBook
from domain.credits.organisation_state import OrganisationState
from domain.credits.subscription import Subscription
from domain.shared.aggregate import DomainEvent, EventEnvelope
from domain.shared.command_context import CommandContext, HeaderFields

_CONSEQUENCES: Final = (HoldExpired, BalanceWentLow, CreditsExhausted, CreditsReplenished)
"""Events that no caller asks for: time or another event leads to them."""


class DecisionSteps(OrganisationState):
    """The steps of a decision. Each decision calls `_begin` first, because every event needs its header."""

    __slots__ = ()

    @property
    def hold_book(self) -> HoldBook:
        """The open holds and the settlements."""
        return HoldBook(self.holds, self.settlements)

    @property
    def subscription(self) -> Subscription:
        """The plan and its end."""
        return Subscription(self.plan, self.plan_expires_at)

    @property
    def has_auto_top_up(self) -> bool:
        """Whether auto top-up is on."""
        return self.auto_top_up is not None and self.auto_top_up.is_on

    def collect_events(self) -> Sequence[EventEnvelope]:
        """Return the events decided since the last call, and the thresholds they crossed.

        Only the state before the first and after the last event counts, so a crossing is recorded once.
        """
        self._record_threshold_crossings()
        return super().collect_events()

    def _begin(self, context: CommandContext) -> HeaderFields:
        """Begin a decision: holds past their end expire first. Return the header of its events."""
        self._expire_due_holds(context.at, context.cause)
        return context.event_header

    def _record(self, event: DomainEvent) -> EventEnvelope:
        """Apply an event and keep it for `collect_events`. The first event stores what was available."""
        assert event.recorded_at < self.next_expiry or isinstance(event, _CONSEQUENCES), (
            "a decision begins with _begin"
        )
        if not self._pending:
            self._available_before = self.available
        return super()._record(event)

    def _expire_due_holds(self, now: datetime, cause: str) -> None:
        if self.next_expiry <= now:
            for expired in self.hold_book.expire(now, cause):
                self._record(expired)

    def _record_threshold_crossings(self) -> None:
        if not self._pending or self._pending[0].originator_version == 1:
            return  # what it opens with crosses nothing
        before, after, threshold = self._available_before, self.available, self.low_balance_threshold
        last = self._pending[-1].event
        if after < threshold <= before and after > 0:
            self._record(BalanceWentLow(last.recorded_at, last.actor, last.cause, after, threshold))
        if after <= 0 < before:
            self._record(CreditsExhausted(last.recorded_at, last.actor, last.cause, after))
        if before <= 0 < after:
            self._record(CreditsReplenished(last.recorded_at, last.actor, last.cause, after))
