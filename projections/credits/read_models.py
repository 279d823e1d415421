"""Results of the queries. Credits are whole; `position` is the log position at which the result is exact."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum

import msgspec

from domain.credits.events import GrantKind
from domain.credits.holds import HoldMode
from domain.credits.lots import LotAllocation
from domain.pricing.plans import Plan
from domain.pricing.rate_card import UsageType
from domain.shared.money import Currency
from projections.credits.holds import HoldStatus


class TransactionKind(StrEnum):
    """The two lists that a transaction can belong to."""

    USAGE = "usage"
    ADDITION = "addition"


class TransactionType(StrEnum):
    """The displayed type of a transaction."""

    USAGE = "usage"
    PURCHASE = "purchase"
    FREE_CREDITS = "free_credits"
    ADMIN_GRANT = "admin_grant"
    REFUND = "refund"
    PURCHASE_REFUND = "purchase_refund"


class PurchaseDetails(msgspec.Struct, frozen=True, tag="purchase", tag_field="type"):
    """Details of a purchase: the price in millionths of the currency unit, amounts in minor units."""

    gateway: str
    payment_id: str
    order_id: str
    unit_price_millionths: int
    amount_minor: int
    tax_minor: int
    currency: Currency


class GrantDetails(msgspec.Struct, frozen=True, tag="grant", tag_field="type"):
    """Details of a grant."""

    kind: GrantKind
    reason: str


class RefundDetails(msgspec.Struct, frozen=True, tag="refund", tag_field="type"):
    """Details of a refund; `charge` is the version of the refunded charge."""

    charge: int
    run_id: str
    reason: str


class PurchaseRefundDetails(msgspec.Struct, frozen=True, tag="purchase_refund", tag_field="type"):
    """Details of a refunded purchase: the version of the purchase, our ids, and the money in minor units.

    Without money, it is a refund that the gateway refused: the credits were restored.
    """

    purchase: int
    payment_id: str
    refund_id: str
    amount_minor: int | None = None
    tax_minor: int | None = None
    currency: Currency | None = None


Details = PurchaseDetails | GrantDetails | RefundDetails | PurchaseRefundDetails


class Balance(msgspec.Struct, frozen=True):
    """An organisation's credits and terms. `balance` = granted + purchased + refunded - charged.

    `on_hold` is the unused part of open holds.
    The price is in millionths of the currency unit; `version` counts the organisation's events.
    """

    organisation_id: str
    balance: int
    granted: int
    purchased: int
    refunded: int
    charged: int
    currency: Currency
    price_millionths: int
    plan: Plan
    plan_expires_at: datetime | None
    time_zone: str
    opened_at: datetime
    on_hold: int
    version: int
    position: int

    @property
    def available(self) -> int:
        """Credits a new run may use; processing is paused while this is 0 or less."""
        return self.balance - self.on_hold


class MonthUsage(msgspec.Struct, frozen=True):
    """A month card: the usage of all runs that count in the month.

    `month` is its first day in the organisation's zone. `events` counts distinct photo events.
    `to_same_point` is the part of `credits` used up to today's day of the month: a value to compare the
    current month with. A run that counts in the month may have started before it.
    """

    month: date
    credits: int
    runs: int
    photos: int
    events: int
    to_same_point: int
    current: bool


class UsageSummary(msgspec.Struct, frozen=True):
    """Consecutive months, the current one first; `today` is the date in the organisation's zone."""

    time_zone: str
    today: date
    months: list[MonthUsage]
    position: int


class Transaction(msgspec.Struct, frozen=True):
    """One run, or one addition.

    `reference` is the run id of usage, or the version of an addition. `credits` is signed: usage is negative.
    `occurred_at` is the time of a run's earliest charge, `month` is the month that the run counts in, and
    `actor` None is the System. `event_name` belongs to the first of `event_ids`. A run's charges are among
    the organisation's versions `first_version` to `last_version`.
    """

    kind: TransactionKind
    reference: str
    type: TransactionType
    credits: int
    occurred_at: datetime
    recorded_at: datetime
    actor: str | None
    month: date | None
    photos: int | None
    usage_types: list[UsageType]
    event_ids: list[int]
    event_name: str | None
    first_version: int
    last_version: int
    details: Details | None


class TransactionPage(msgspec.Struct, frozen=True):
    """Transactions, newest first; `next_cursor` is None on the last page."""

    transactions: list[Transaction]
    next_cursor: str | None
    position: int


class Charge(msgspec.Struct, frozen=True):
    """A single charge of a run, identified by its `version`; `rate_millionths` of a credit per photo.

    `settled` photos were charged before, by a settlement. `from_hold` credits came from the run's hold;
    `beyond_hold` credits exceeded the hold that the message named. `draws` lists the lots it drew on, in
    spend order; `overdraft` is the part that no lot covered.
    """

    version: int
    occurred_at: datetime
    recorded_at: datetime
    day: date
    usage_type: UsageType
    photos: int
    rate_millionths: int
    credits: int
    event_id: int | None
    event_name: str | None
    actor: str | None
    hold_id: str | None
    settled: int
    from_hold: int
    beyond_hold: int
    draws: Sequence[LotAllocation]
    overdraft: int


class ChargePage(msgspec.Struct, frozen=True):
    """Charges of a run in ledger order.

    A page may have fewer charges than requested, even none, and still have a `next_cursor`: the cost of a
    page is bounded, and charges of a run may be far apart in the log.
    """

    charges: list[Charge]
    next_cursor: str | None
    position: int


class PhotoEventUsage(msgspec.Struct, frozen=True):
    """Usage of a photo event; `event_name` is the latest reported name, `runs` counts distinct runs."""

    event_id: int
    event_name: str
    credits: int
    photos: int
    runs: int
    first_occurred_at: datetime
    last_occurred_at: datetime


class PhotoEventUsagePage(msgspec.Struct, frozen=True):
    """Photo events of one month, or of all time if `month` is None; most expensive first."""

    month: date | None
    events: list[PhotoEventUsage]
    next_cursor: str | None
    position: int


class DayUsage(msgspec.Struct, frozen=True):
    """Usage on a calendar day. Its runs may count in another month."""

    day: date
    credits: int
    photos: int


class DailyUsage(msgspec.Struct, frozen=True):
    """Every day of a range, oldest first, zeros included."""

    days: list[DayUsage]
    position: int


class Hold(msgspec.Struct, frozen=True):
    """A hold: `requested` credits were requested, `credits` were held, and `used` of these were charged.

    A closed hold released the rest at `closed_at`.
    """

    hold_id: str
    run_id: str
    status: HoldStatus
    mode: HoldMode
    requested: int
    credits: int
    used: int
    placed_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    version: int

    @property
    def remaining(self) -> int:
        """Credits that are held at this moment."""
        return self.credits - self.used if self.status is HoldStatus.OPEN else 0


class HoldList(msgspec.Struct, frozen=True):
    """Holds, the newest first."""

    holds: list[Hold]
    position: int


class ProjectionPosition(msgspec.Struct, frozen=True):
    """The position of a projection; `generation` grows with every rebuild."""

    projection: str
    position: int
    generation: int
    updated_at: datetime


class Positions(msgspec.Struct, frozen=True):
    """The positions of all projections, and the last notification id of the log (0 if empty)."""

    projections: list[ProjectionPosition]
    log_end: int

    @property
    def position(self) -> int:
        """The position that every projection has reached."""
        return min((each.position for each in self.projections), default=0)


class PhotoEventMonth(msgspec.Struct, frozen=True):
    """Usage of a photo event in a month."""

    month: date
    credits: int
    photos: int
    runs: int


class PhotoEventDetails(msgspec.Struct, frozen=True):
    """A photo event: its total usage, its usage by month, and a page of its runs, newest first.

    A page examines a bounded number of the organisation's runs, so it may be short, even empty, and still
    have a `next_cursor`. A run of several events is listed with all its credits.
    """

    total: PhotoEventUsage
    months: list[PhotoEventMonth]
    runs: list[Transaction]
    next_cursor: str | None
    position: int


class RunDetails(msgspec.Struct, frozen=True):
    """A run, a page of its charges, and the additions that opened the lots these drew on, by lot number."""

    run: Transaction
    charges: list[Charge]
    lots: dict[int, Transaction]
    next_cursor: str | None
    position: int
