"""The facts of an organisation's history, and how each one changes it.

A fact is a frozen struct stored as a JSON array: fields are only ever appended, with a default, or the fact
gets a new topic (see `domain.event_catalogue`). A decision of the aggregate checks, builds a fact and applies it at
once through the same `apply` that replay uses.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import msgspec

from domain.credits.holds import Hold, HoldRequest, Settlement
from domain.credits.lots import Lot, LotAllocation, LotKind, draw, restore, withdraw
from domain.credits.usage import ChargeFingerprint
from domain.pricing.plans import Plan
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS, UsageType
from domain.shared.money import Currency

if TYPE_CHECKING:
    from domain.credits.organisation import Organisation


class GrantKind(StrEnum):
    """Why credits were given without payment."""

    TRIAL = "trial"
    PROMOTIONAL = "promotional"
    ADMIN = "admin"


class OrganisationOpened(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An organisation has credits from now on."""

    recorded_at: datetime
    actor: str | None
    cause: str
    organisation_id: str
    time_zone: str
    currency: Currency
    price_millionths: int
    plan: Plan

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        organisation.organisation_id = self.organisation_id
        organisation.time_zone = self.time_zone
        organisation.currency = self.currency
        organisation.price_millionths = self.price_millionths
        organisation.plan = self.plan


class CreditsGranted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Credits were given; `overdraft_covered` of them paid an overdraft, the rest opened a free lot."""

    recorded_at: datetime
    actor: str | None
    cause: str
    credits: int
    kind: GrantKind
    reason: str
    overdraft_covered: int

    @property
    def balance_delta(self) -> int:
        return self.credits

    def apply(self, organisation: Organisation) -> None:
        organisation.open_lot(LotKind.FREE, self.credits, self.overdraft_covered)


class CreditsPurchased(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Credits were bought; `overdraft_covered` of them paid an overdraft, the rest opened a paid lot.

    The price is in millionths of the currency unit, amount and tax in its minor units.
    """

    recorded_at: datetime
    actor: str | None
    cause: str
    credits: int
    payment_id: str
    order_id: str
    gateway: str
    unit_price_millionths: int
    amount_minor: int
    tax_minor: int
    currency: Currency
    overdraft_covered: int

    @property
    def balance_delta(self) -> int:
        return self.credits

    def apply(self, organisation: Organisation) -> None:
        organisation.open_lot(LotKind.PAID, self.credits, self.overdraft_covered)


class UsageCharged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Photos of a run were processed; `credits` may be 0, and then only the message is on record.

    `draws` are the lots it drew on, in spend order; `overdraft` what none of them covered. `day` is
    the calendar day of `occurred_at` in the organisation's zone at that moment, frozen for ever.
    `settled` of the photos were charged before, when the run's hold was settled; `from_hold` of the credits
    were held for the run.
    """

    recorded_at: datetime
    actor: str | None
    cause: str
    source: str
    run_id: str
    usage_type: UsageType
    photos: int
    ai_search: bool
    rate_millionths: int
    credits: int
    draws: tuple[LotAllocation, ...]
    overdraft: int
    event_id: int
    event_name: str
    occurred_at: datetime
    day: date
    hold_id: str | None
    settled: int = 0
    from_hold: int = 0

    @property
    def balance_delta(self) -> int:
        return -self.credits

    @property
    def new_photos(self) -> int:
        """Photos that no settlement has charged ahead of this message."""
        return self.photos - self.settled

    @property
    def beyond_hold(self) -> int:
        """Credits that the hold named did not cover: all of them where it was not open any more."""
        return 0 if self.hold_id is None else self.credits - self.from_hold

    @property
    def charge_fingerprint(self) -> ChargeFingerprint:
        """The fields that a repeat of the message must agree in."""
        return (self.run_id, self.usage_type, self.photos, self.ai_search, self.event_id)

    def apply(self, organisation: Organisation) -> None:
        draw(organisation.lots, self.draws)
        organisation.overdraft += self.overdraft
        organisation.balance -= self.credits
        if self.rate_millionths % WHOLE_CREDIT_MILLIONTHS:
            organisation.add_to_run_total(self)
        organisation.apply_charge_to_hold(self)


class ChargeRefunded(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Credits of a charge were returned, as if the charge had been that much smaller.

    `charge` is the number (version) of the charge; `overdraft_covered` of the credits paid an overdraft and
    `returned` went back to lots, where a lot with this event's own number is new.
    """

    recorded_at: datetime
    actor: str | None
    cause: str
    charge: int
    credits: int
    returned: tuple[Lot, ...]
    overdraft_covered: int
    reason: str
    run_id: str
    event_id: int
    event_name: str

    @property
    def balance_delta(self) -> int:
        return self.credits

    def apply(self, organisation: Organisation) -> None:
        organisation.overdraft -= self.overdraft_covered
        organisation.balance += self.credits
        for lot in self.returned:
            # A copy: the lot in the event must never change when the organisation spends from it.
            restore(organisation.lots, Lot(lot.kind, lot.number, lot.size, lot.remaining))


class PurchaseRefunded(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Credits of a purchase were taken back, so that its money can be: out of the lot it opened.

    `purchase` is the number (version) of the purchase, `taken` what left its lot. `payment_id` and
    `refund_id` are ours; amounts are in minor units, tax on top.
    """

    recorded_at: datetime
    actor: str | None
    cause: str
    purchase: int
    taken: Lot
    payment_id: str
    refund_id: str
    amount_minor: int
    tax_minor: int
    currency: Currency

    @property
    def credits(self) -> int:
        """Credits that were taken back."""
        return self.taken.remaining

    @property
    def balance_delta(self) -> int:
        return -self.credits

    def apply(self, organisation: Organisation) -> None:
        organisation.balance -= self.credits
        withdraw(organisation.lots, self.purchase, self.credits)


class PurchaseRefundReversed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The money of a purchase did not go back after all, so its credits are here again.

    `overdraft_covered` of the credits paid an overdraft, and what is left went back to the lot of the purchase.
    """

    recorded_at: datetime
    actor: str | None
    cause: str
    purchase: int
    taken: Lot
    payment_id: str
    refund_id: str
    overdraft_covered: int

    @property
    def credits(self) -> int:
        """Credits that are here again."""
        return self.taken.remaining

    @property
    def balance_delta(self) -> int:
        return self.credits

    def apply(self, organisation: Organisation) -> None:
        organisation.overdraft -= self.overdraft_covered
        organisation.balance += self.credits
        if self.credits > self.overdraft_covered:
            taken = self.taken
            restore(
                organisation.lots,
                Lot(taken.kind, taken.number, taken.size, taken.remaining - self.overdraft_covered),
            )


class PriceChanged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A credit costs something else from now on. What was bought stays as it was bought."""

    recorded_at: datetime
    actor: str | None
    cause: str
    price_millionths: int

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        organisation.price_millionths = self.price_millionths


class PlanChanged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The organisation pays by another plan; None never expires."""

    recorded_at: datetime
    actor: str | None
    cause: str
    plan: Plan
    expires_at: datetime | None

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        organisation.plan = self.plan
        organisation.plan_expires_at = self.expires_at


class TimeZoneChanged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Days and months of later charges are those of another zone; past months stay."""

    recorded_at: datetime
    actor: str | None
    cause: str
    time_zone: str

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        organisation.time_zone = self.time_zone


class HoldPlaced(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Credits were set aside for a run: `credits` of those asked for. `reported` are the photos of each type
    that the run was charged before.
    """

    recorded_at: datetime
    actor: str | None
    cause: str
    hold_id: str
    request: HoldRequest
    credits: int
    expires_at: datetime
    reported: dict[UsageType, int] = {}

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        organisation.open_hold(
            Hold(self.hold_id, self.request, self.credits, self.credits, self.expires_at, self.reported)
        )


class HoldSettled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run ended with `photos` in all. The charge before this fact, if any, is of the `unreported_photos` among them
    that no message had reported; `released` credits are free again.
    """

    recorded_at: datetime
    actor: str | None
    cause: str
    hold_id: str
    run_id: str
    usage_type: UsageType | None
    photos: int
    unreported_photos: int
    released: int

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        organisation.close_hold(self.run_id)
        if self.unreported_photos and self.usage_type is not None:
            organisation.open_settlement(
                Settlement(self.run_id, self.usage_type, self.unreported_photos, self.recorded_at)
            )


class _HoldEnded(msgspec.Struct, frozen=True, array_like=True, gc=False):
    recorded_at: datetime
    actor: str | None
    cause: str
    hold_id: str
    run_id: str
    released: int

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        organisation.close_hold(self.run_id)


class HoldReleased(_HoldEnded, frozen=True, array_like=True, gc=False):
    """A run gave its hold back: `released` credits are free again."""


class HoldExpired(_HoldEnded, frozen=True, array_like=True, gc=False):
    """A hold lapsed unsettled: `released` credits are free again."""


class LowBalanceThresholdSet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The organisation wants to know when less than this is available; 0: never."""

    recorded_at: datetime
    actor: str | None
    cause: str
    threshold: int

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        organisation.low_balance_threshold = self.threshold


class BalanceWentLow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Available credits fell below the organisation's threshold, and something is left."""

    recorded_at: datetime
    actor: str | None
    cause: str
    available: int
    threshold: int

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        pass


class _ZeroCrossed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    recorded_at: datetime
    actor: str | None
    cause: str
    available: int

    balance_delta: ClassVar[int] = 0

    def apply(self, organisation: Organisation) -> None:
        pass


class CreditsExhausted(_ZeroCrossed, frozen=True, array_like=True, gc=False):
    """Nothing is available any more: processing pauses."""


class CreditsReplenished(_ZeroCrossed, frozen=True, array_like=True, gc=False):
    """Credits are available again: processing goes on."""


def is_billable(charge: UsageCharged) -> bool:
    """Say whether a charge is part of its run; others keep their message from being charged later."""
    return charge.rate_millionths > 0 and charge.photos > 0
