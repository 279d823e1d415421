"""Auto top-up: credits that are bought by themselves when few are left, and the brake on it.

Off unless somebody switches it on, with a purchase of theirs whose card may be charged again. What the brake
allows is decision 0011: so many attempts a day, one at a time, never for more money than was agreed to.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from domain.shared.calendar import local_day
from domain.shared.errors import InvalidInput

TOP_UPS_PER_DAY_MAX: Final = 10
"""Top-ups a day that can be allowed at most."""
CONSECUTIVE_FAILURES_MAX: Final = 3
"""After so many payments in a row that failed, on as many days, auto top-up switches itself off."""
THRESHOLD_MAX: Final = 1_000_000_000_000
_ZONE_CHANGE_WINDOW: Final = timedelta(hours=24)
_ATTEMPT_RETENTION: Final = timedelta(days=3)


class TopUpTerms(msgspec.Struct, frozen=True):
    """What somebody wants: so many credits whenever fewer than `threshold` are available, so often a day."""

    credits: int
    threshold: int
    per_day: int = 1

    def check(self) -> None:
        """Check what prices do not say.

        Raises:
            InvalidInput: threshold outside 1 to `THRESHOLD_MAX`, or per_day outside 1 to `TOP_UPS_PER_DAY_MAX`.
        """
        if not 1 <= self.threshold <= THRESHOLD_MAX:
            raise InvalidInput("threshold", f"the threshold must be between 1 and {THRESHOLD_MAX:,}")
        if not 1 <= self.per_day <= TOP_UPS_PER_DAY_MAX:
            raise InvalidInput("per_day", f"a day may have 1 to {TOP_UPS_PER_DAY_MAX} top-ups")


class LastTopUpStatus(StrEnum):
    """What has become of the payment of the last top-up."""

    NONE = "none"
    UNDER_WAY = "under_way"
    PAID = "paid"
    FAILED = "failed"


class HeldReason(StrEnum):
    """Why no top-up begins although credits are low."""

    LIMIT_REACHED = "limit_reached"
    """The day has had as many as it may."""
    PAYMENT_FAILED = "payment_failed"
    """The card was refused: it is tried again tomorrow."""
    TOO_SMALL = "too_small"
    """What was bought left the balance below its threshold: more of the same would not mend that."""


class OffReason(StrEnum):
    """Why auto top-up was switched off."""

    ASKED = "asked"
    PAYMENTS_FAILED = "payments_failed"
    """The card was refused `CONSECUTIVE_FAILURES_MAX` times."""
    PRICE_ROSE = "price_rose"
    """A top-up would cost more than was agreed to when it was switched on."""
    NOT_FOR_SALE = "not_for_sale"
    """So many credits can no longer be bought, or the organisation is billed by agreement now."""


class TopUpAttempt(msgspec.Struct, frozen=True, array_like=True):
    """A top-up that was begun: when, and on which day of which zone."""

    at: datetime
    day: date
    time_zone: str


class StartTopUp(msgspec.Struct, frozen=True):
    """The answer to low credits: buy. It is the `number`-th of its day, after `failures` in a row."""

    day: date
    number: int
    failures: int


class HoldTopUp(msgspec.Struct, frozen=True):
    """The answer to low credits: not today."""

    reason: HeldReason
    day: date


class SwitchOffTopUp(msgspec.Struct, frozen=True):
    """The answer to low credits: no more, until somebody switches it on again."""

    reason: OffReason


class AutoTopUp(msgspec.Struct, frozen=True):
    """Where an organisation's auto top-up stands. What was begun counts on when it is switched off and on.

    `card_of` is the payment whose card is charged, `amount_minor_max` the most it may be charged a time, with tax.
    """

    is_on: bool
    terms: TopUpTerms
    card_of: str
    amount_minor_max: int = msgspec.field(name="most_minor")
    attempts: tuple[TopUpAttempt, ...] = ()
    last_payment_id: str | None = None
    failures: int = 0
    held_on: date | None = None

    def decide(
        self, now: datetime, time_zone: str, last: LastTopUpStatus, total_minor: int
    ) -> StartTopUp | HoldTopUp | SwitchOffTopUp | None:
        """Return what to do about low credits; None: wait, or it was said before.

        `total_minor` is what the top-up would cost now, tax included.
        """
        failures = self.failures + 1 if last is LastTopUpStatus.FAILED else 0
        today, begun = local_day(time_zone, now), self.count_started_today(now, time_zone)
        if last is LastTopUpStatus.UNDER_WAY:
            return None
        if total_minor > self.amount_minor_max:
            return SwitchOffTopUp(OffReason.PRICE_ROSE)
        if failures >= CONSECUTIVE_FAILURES_MAX:
            return SwitchOffTopUp(OffReason.PAYMENTS_FAILED)
        if failures and begun:
            return self._hold_once_a_day(HeldReason.PAYMENT_FAILED, today)
        if begun >= self.terms.per_day:
            return self._hold_once_a_day(HeldReason.LIMIT_REACHED, today)
        return None if self.held_on == today else StartTopUp(today, begun + 1, failures)

    def count_started_today(self, now: datetime, time_zone: str) -> int:
        """Count the attempts of the day; after a change of zone, whatever was begun within 24 hours."""
        today = local_day(time_zone, now)
        return sum(
            attempt.day == today
            if attempt.time_zone == time_zone
            else now - attempt.at < _ZONE_CHANGE_WINDOW or attempt.day == today
            for attempt in self.attempts
        )

    def with_attempt(self, attempt: TopUpAttempt, payment_id: str, failures: int) -> AutoTopUp:
        """Return it after a top-up was begun; attempts too old to count are forgotten."""
        recent = [each for each in self.attempts if attempt.at - each.at < _ATTEMPT_RETENTION]
        return msgspec.structs.replace(
            self, attempts=(*recent, attempt), last_payment_id=payment_id, failures=failures
        )

    def _hold_once_a_day(self, reason: HeldReason, today: date) -> HoldTopUp | None:
        return None if self.held_on == today else HoldTopUp(reason, today)
