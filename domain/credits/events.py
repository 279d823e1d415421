"""The events of an organisation's history that concern its credits, its plan and its holds.

An event is a frozen struct stored as a JSON array: the header first, then its own fields. Fields are only
ever appended, with a default; any other change needs a new topic (see `domain.event_catalogue`). An event
knows no state: `domain.credits.organisation_state` says what it changes.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum

import msgspec

from domain.credits.holds import HoldRequest
from domain.credits.lots import Lot, LotAllocation
from domain.credits.usage import ChargeFingerprint
from domain.pricing.plans import Plan
from domain.pricing.rate_card import UsageType
from domain.shared.aggregate import EventHeader
from domain.shared.money import Currency


class GrantKind(StrEnum):
    """Why credits were given without payment."""

    TRIAL = "trial"
    PROMOTIONAL = "promotional"
    ADMIN = "admin"


class OrganisationOpened(EventHeader, frozen=True):
    """An organisation was opened: it has credits from now on."""

    organisation_id: str
    time_zone: str
    currency: Currency
    price_millionths: int
    plan: Plan


class CreditsGranted(EventHeader, frozen=True):
    """Credits were given; `overdraft_covered` of them paid an overdraft, the rest opened a free lot."""

    credits: int
    kind: GrantKind
    reason: str
    overdraft_covered: int

    @property
    def balance_delta(self) -> int:
        return self.credits


class CreditsPurchased(EventHeader, frozen=True):
    """Credits were bought; `overdraft_covered` of them paid an overdraft, the rest opened a paid lot.

    The price is in millionths of the currency unit, amount and tax in its minor units.
    """

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


class UsageCharged(EventHeader, frozen=True):
    """Photos of a run were processed; `credits` may be 0, and then only the message is on record.

    `draws` are the draws on lots, in spend order. `overdraft` is the part that no lot covered. `day` is
    the calendar day of `occurred_at` in the zone that the organisation had then; it never changes.
    The settlement of the run's hold has charged `settled` of the photos before; `from_hold` of the credits
    were held for the run.
    """

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
        """Photos that no settlement has charged before this message."""
        return self.photos - self.settled

    @property
    def beyond_hold(self) -> int:
        """Credits that the named hold did not cover: all of them if it was closed."""
        return 0 if self.hold_id is None else self.credits - self.from_hold

    @property
    def charge_fingerprint(self) -> ChargeFingerprint:
        """The fields in which a repeat of the message must agree."""
        return (self.run_id, self.usage_type, self.photos, self.ai_search, self.event_id)


class ChargeRefunded(EventHeader, frozen=True):
    """Credits of a charge were returned, as if the charge had been smaller.

    `charge` is the version of the charge event. `overdraft_covered` is the part of the credits that paid an
    overdraft. `returned` is the part that returned to lots; a lot with this event's own version is new.
    """

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


class PurchaseRefunded(EventHeader, frozen=True):
    """Credits were removed from the lot of a purchase, so that the money of the purchase can be refunded.

    `purchase` is the version of the purchase event. `taken` is the part of its lot that was removed.
    `payment_id` and `refund_id` are the ledger's own; amounts are in minor units, without tax.
    """

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


class PurchaseRefundReversed(EventHeader, frozen=True):
    """The refund of a purchase failed, so its credits were returned.

    `overdraft_covered` of the credits paid an overdraft; the rest returned to the lot of the purchase.
    """

    purchase: int
    taken: Lot
    payment_id: str
    refund_id: str
    overdraft_covered: int

    @property
    def credits(self) -> int:
        """Credits that were returned."""
        return self.taken.remaining

    @property
    def balance_delta(self) -> int:
        return self.credits


class PriceChanged(EventHeader, frozen=True):
    """The price of a credit changed. Earlier purchases keep their price."""

    price_millionths: int


class PlanChanged(EventHeader, frozen=True):
    """The organisation has another plan; `expires_at` None: it never expires."""

    plan: Plan
    expires_at: datetime | None


class TimeZoneChanged(EventHeader, frozen=True):
    """Days and months of later charges are those of another zone; past months do not change."""

    time_zone: str


class HoldPlaced(EventHeader, frozen=True):
    """Credits were set aside for a run: `credits` of those requested.

    `reported` are the photos of each type that the run was charged for before.
    """

    hold_id: str
    request: HoldRequest
    credits: int
    expires_at: datetime
    reported: dict[UsageType, int] = msgspec.field(default_factory=dict)


class HoldSettled(EventHeader, frozen=True):
    """A run ended with `photos` in all; `released` credits are free again.

    No message had reported `unreported_photos` of them: if there are any, the event before charges them.
    """

    hold_id: str
    run_id: str
    usage_type: UsageType | None
    photos: int
    unreported_photos: int
    released: int


class _HoldEnded(EventHeader, frozen=True):
    hold_id: str
    run_id: str
    released: int


class HoldReleased(_HoldEnded, frozen=True):
    """A hold was released: `released` credits are free again."""


class HoldExpired(_HoldEnded, frozen=True):
    """A hold expired before it was settled: `released` credits are free again."""


class LowBalanceThresholdSet(EventHeader, frozen=True):
    """The organisation wants an event when less than this is available; 0: never."""

    threshold: int


class BalanceWentLow(EventHeader, frozen=True):
    """Available credits fell below the organisation's threshold, but not to zero."""

    available: int
    threshold: int


class _ZeroCrossed(EventHeader, frozen=True):
    available: int


class CreditsExhausted(_ZeroCrossed, frozen=True):
    """Nothing is available any more: processing pauses."""


class CreditsReplenished(_ZeroCrossed, frozen=True):
    """Credits are available again: processing goes on."""


def is_billable(charge: UsageCharged) -> bool:
    """Tell whether a charge counts in its run; the others only mark their message as processed."""
    return charge.rate_millionths > 0 and charge.photos > 0
