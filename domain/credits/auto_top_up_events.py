"""Facts of an organisation's history about auto top-up. They change no credits: payments do."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec.structs import replace

from domain.credits.auto_top_up import AutoTopUp, HeldReason, OffReason, TopUpAttempt, TopUpTerms

if TYPE_CHECKING:
    from domain.credits.organisation import Organisation


class _AutoTopUpEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    recorded_at: datetime
    actor: str | None
    cause: str

    balance_delta: ClassVar[int] = 0


class AutoTopUpSwitchedOn(_AutoTopUpEvent, frozen=True, array_like=True, gc=False):
    """Credits are bought by themselves from now on, with the card that paid `payment_id`.

    `amount_minor_max` is what it may be charged each time: what that payment was of, tax included.
    """

    credits: int
    threshold: int
    per_day: int
    payment_id: str
    amount_minor_max: int

    def apply(self, organisation: Organisation) -> None:
        before = organisation.auto_top_up
        organisation.auto_top_up = AutoTopUp(
            is_on=True,
            terms=TopUpTerms(self.credits, self.threshold, self.per_day),
            card_of=self.payment_id,
            amount_minor_max=self.amount_minor_max,
            attempts=() if before is None else before.attempts,
        )


class AutoTopUpChanged(_AutoTopUpEvent, frozen=True, array_like=True, gc=False):
    """Another number of credits, another threshold, or another number of top-ups a day."""

    credits: int
    threshold: int
    per_day: int

    def apply(self, organisation: Organisation) -> None:
        terms = TopUpTerms(self.credits, self.threshold, self.per_day)
        organisation.auto_top_up = replace(_known(organisation), terms=terms, held_on=None)


class AutoTopUpSwitchedOff(_AutoTopUpEvent, frozen=True, array_like=True, gc=False):
    """Nothing is bought by itself any more."""

    reason: OffReason

    def apply(self, organisation: Organisation) -> None:
        organisation.auto_top_up = replace(_known(organisation), is_on=False)


class AutoTopUpBegun(_AutoTopUpEvent, frozen=True, array_like=True, gc=False):
    """Credits were low, and a payment was asked for: the `number`-th of the organisation's `day`.

    The `failures` top-ups before it, in a row, had failed.
    """

    payment_id: str
    credits: int
    day: date
    number: int
    failures: int

    def apply(self, organisation: Organisation) -> None:
        attempt = TopUpAttempt(self.recorded_at, self.day, organisation.time_zone)
        organisation.auto_top_up = _known(organisation).with_attempt(attempt, self.payment_id, self.failures)


class AutoTopUpHeld(_AutoTopUpEvent, frozen=True, array_like=True, gc=False):
    """Credits are low, and nothing more is bought on this `day`; `per_day` is what it may have."""

    reason: HeldReason
    day: date
    per_day: int

    def apply(self, organisation: Organisation) -> None:
        organisation.auto_top_up = replace(_known(organisation), held_on=self.day)


def _known(organisation: Organisation) -> AutoTopUp:
    """Return the state of an auto top-up that was switched on before."""
    assert organisation.auto_top_up is not None
    return organisation.auto_top_up
