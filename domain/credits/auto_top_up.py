"""Auto top-up: the ledger buys credits by itself when few are left, within limits.

It is off until somebody switches it on with a purchase; the card of that purchase is charged again. Decision
0011 sets the limits: a number of attempts a day, one at a time, never for more money than was agreed to.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from domain.credits.auto_top_up_events import (
    AutoTopUpBegun,
    AutoTopUpHeld,
    AutoTopUpSwitchedOff,
    HeldReason,
    OffReason,
)
from domain.credits.errors import AutoTopUpNotOn
from domain.shared.calendar import local_day
from domain.shared.command_context import HeaderFields
from domain.shared.errors import InvalidInput

TOP_UPS_PER_DAY_MAX: Final = 10
"""Top-ups a day that can be allowed at most."""
CONSECUTIVE_FAILURES_MAX: Final = 3
"""After this number of failed payments in a row, on as many days, auto top-up switches itself off."""
THRESHOLD_MAX: Final = 1_000_000_000_000
_ZONE_CHANGE_WINDOW: Final = timedelta(hours=24)
_ATTEMPT_RETENTION: Final = timedelta(days=3)


class TopUpTerms(msgspec.Struct, frozen=True):
    """Buy `credits` whenever fewer than `threshold` are available, at most `per_day` times a day."""

    credits: int
    threshold: int
    per_day: int = 1

    def check(self) -> None:
        """Check the threshold and the number a day; prices limit the credits.

        Raises:
            InvalidInput: threshold outside 1 to `THRESHOLD_MAX`, or per_day to `TOP_UPS_PER_DAY_MAX`.
        """
        if not 1 <= self.threshold <= THRESHOLD_MAX:
            raise InvalidInput("threshold", f"the threshold must be between 1 and {THRESHOLD_MAX:,}")
        if not 1 <= self.per_day <= TOP_UPS_PER_DAY_MAX:
            raise InvalidInput("per_day", f"a day may have 1 to {TOP_UPS_PER_DAY_MAX} top-ups")


TopUpDecision = AutoTopUpBegun | AutoTopUpHeld | AutoTopUpSwitchedOff
"""The events that low credits can lead to."""


class LastTopUpStatus(StrEnum):
    """The status of the payment of the last top-up."""

    NONE = "none"
    UNDER_WAY = "under_way"
    PAID = "paid"
    FAILED = "failed"


class TopUpAttempt(msgspec.Struct, frozen=True, array_like=True):
    """A top-up that was started: when, and on which day of which zone."""

    at: datetime
    day: date
    time_zone: str


class AutoTopUp(msgspec.Struct, frozen=True):
    """The auto top-up of an organisation. Its attempts still count after it is switched off and on again.

    It decides; the organisation records. `card_of` is the payment whose card is charged, `amount_minor_max`
    the most it may charge each time, with tax.
    """

    is_on: bool
    terms: TopUpTerms
    card_of: str
    amount_minor_max: int = msgspec.field(name="most_minor")
    attempts: tuple[TopUpAttempt, ...] = ()
    last_payment_id: str | None = None
    failures: int = 0
    held_on: date | None = None

    def is_needed(self, available: int) -> bool:
        """Tell whether it is on and credits are low."""
        return self.is_on and available < self.terms.threshold

    def check_total(self, total_minor: int) -> None:
        """Check what a top-up on new terms would cost now.

        Raises:
            InvalidInput: more than the agreed maximum.
        """
        if total_minor > self.amount_minor_max:
            raise InvalidInput(
                "credits", "these cost more than the agreed maximum: switch auto top-up on again for them"
            )

    def start(
        self, header: HeaderFields, payment_id: str, time_zone: str, last: LastTopUpStatus, total_minor: int
    ) -> TopUpDecision | None:
        """Decide what to do about low credits; None: wait, or the reason is recorded already.

        `total_minor` is what the top-up would cost now, tax included.
        """
        now = header[0]
        failures = self.failures + 1 if last is LastTopUpStatus.FAILED else 0
        today, started = local_day(time_zone, now), self.count_started_today(now, time_zone)
        if last is LastTopUpStatus.UNDER_WAY:
            return None
        if total_minor > self.amount_minor_max:
            return AutoTopUpSwitchedOff(*header, OffReason.PRICE_ROSE)
        if failures >= CONSECUTIVE_FAILURES_MAX:
            return AutoTopUpSwitchedOff(*header, OffReason.PAYMENTS_FAILED)
        if failures and started:
            return self._hold_once_a_day(header, HeldReason.PAYMENT_FAILED, today)
        if started >= self.terms.per_day:
            return self._hold_once_a_day(header, HeldReason.LIMIT_REACHED, today)
        begun = AutoTopUpBegun(*header, payment_id, self.terms.credits, today, started + 1, failures)
        return None if self.held_on == today else begun

    def complete(self, header: HeaderFields, time_zone: str) -> AutoTopUpHeld | None:
        """Decide what to do if credits are still low after a top-up was paid: start no other on this day."""
        return self._hold_once_a_day(header, HeldReason.TOO_SMALL, local_day(time_zone, header[0]))

    def count_started_today(self, now: datetime, time_zone: str) -> int:
        """Count the attempts of the day; after a change of zone, those of the last 24 hours too."""
        today = local_day(time_zone, now)
        return sum(
            attempt.day == today
            if attempt.time_zone == time_zone
            else now - attempt.at < _ZONE_CHANGE_WINDOW or attempt.day == today
            for attempt in self.attempts
        )

    def with_attempt(self, attempt: TopUpAttempt, payment_id: str, failures: int) -> AutoTopUp:
        """Return it after a top-up was started; attempts that are too old to count are dropped."""
        recent = [each for each in self.attempts if attempt.at - each.at < _ATTEMPT_RETENTION]
        return msgspec.structs.replace(
            self, attempts=(*recent, attempt), last_payment_id=payment_id, failures=failures
        )

    def _hold_once_a_day(self, header: HeaderFields, reason: HeldReason, today: date) -> AutoTopUpHeld | None:
        return None if self.held_on == today else AutoTopUpHeld(*header, reason, today, self.terms.per_day)


def require_on(auto_top_up: AutoTopUp | None) -> AutoTopUp:
    """Return auto top-up if it is on.

    Raises:
        AutoTopUpNotOn: it is not.
    """
    if auto_top_up is None or not auto_top_up.is_on:
        raise AutoTopUpNotOn
    return auto_top_up
