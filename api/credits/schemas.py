"""Response bodies of reads. Credits are whole numbers; `position` is the log position of the response."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Protocol

import msgspec
from pydantic import Field

from api.http.fields import Day, Instant, Month, ShownName
from api.http.views import NextCursor, Position, View, ViewT
from domain.credits.events import GrantKind
from domain.identity.people import ActorNames
from domain.pricing.plans import Plan
from domain.pricing.rate_card import UsageType
from domain.shared.money import MILLIONTHS, Currency
from projections.credits import read_models
from projections.credits.read_models import TransactionKind, TransactionType

ChargedCredits = Annotated[int, Field(description="Credits charged.", examples=[500])]
Photos = Annotated[int, Field(description="Photos processed.", examples=[500])]
EventName = Annotated[str, Field(description="Name of the photo event.", examples=["City Marathon 2026"])]
EventId = Annotated[int, Field(description="Id of the photo event.", examples=[1042])]


class BalanceSource(Protocol):
    """An organisation's credits and terms, from a projection or from its event history."""

    @property
    def organisation_id(self) -> str: ...
    @property
    def balance(self) -> int: ...
    @property
    def available(self) -> int: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def currency(self) -> Currency: ...
    @property
    def price_millionths(self) -> int: ...
    @property
    def time_zone(self) -> str: ...


class Balance(View):
    """The credits and the terms of an organisation."""

    organisation_id: str = Field(description="The organisation.", examples=["org-4711"])
    available: int = Field(description="Credits that a new run can use: balance - on hold.", examples=[700])
    balance: int = Field(description="Credits; negative in overdraft.", examples=[700])
    on_hold: int = Field(description="Credits reserved for running runs.", examples=[0])
    processing: Literal["allowed", "paused"] = Field(
        description="Paused while no credits are available.", examples=["allowed"]
    )
    plan: Plan = Field(description="The plan.", examples=["pay_as_you_go"])
    currency: Currency = Field(description="The currency of its payments.", examples=["USD"])
    cost_per_credit: str = Field(
        description="The price of one credit, as a decimal number of currency units.", examples=["0.02"]
    )
    price_millionths: int = Field(
        description="The same price in millionths of the currency unit.", examples=[20_000]
    )
    time_zone: str = Field(description="The time zone of days and months.", examples=["Asia/Kolkata"])
    as_of: Instant | None = Field(description="The requested time; null for the present.", examples=[None])
    position: Position

    @classmethod
    def of(cls, source: BalanceSource, *, position: int, as_of: Any = None) -> Balance:
        return cls(
            organisation_id=source.organisation_id,
            available=source.available,
            balance=source.balance,
            on_hold=source.balance - source.available,
            processing="allowed" if source.available > 0 else "paused",
            plan=source.plan,
            currency=source.currency,
            cost_per_credit=decimal_price(source.price_millionths),
            price_millionths=source.price_millionths,
            time_zone=source.time_zone,
            as_of=as_of,
            position=position,
        )


class MonthUsage(View):
    """Usage of the runs that count in a month."""

    month: Month = Field(description="The month, in the organisation's time zone.")
    credits: ChargedCredits
    runs: int = Field(description="Runs that count in the month.", examples=[4])
    photos: Photos
    events: int = Field(description="Distinct photo events of these runs.", examples=[2])
    to_same_point: int = Field(
        description="Credits charged from the first day of the month to today's day of the month. Use it to"
        " compare a past month with the current one.",
        examples=[320],
    )
    current: bool = Field(description="Whether this is the current month.", examples=[True])


class UsageSummary(View):
    """Consecutive months, current month first; months without usage are zero."""

    time_zone: str = Field(description="The organisation's time zone.", examples=["Asia/Kolkata"])
    today: Day = Field(description="The current day in that time zone.")
    months: Sequence[MonthUsage] = Field(description="One entry per month.")
    position: Position


class DayUsage(View):
    """Usage that happened on a day. Its runs may count in another month."""

    day: Day = Field(description="The day, in the organisation's time zone.")
    credits: ChargedCredits
    photos: Photos


class DailyUsage(View):
    """Every day of a range, oldest first; days without usage are zero."""

    days: Sequence[DayUsage] = Field(description="One entry per day.")
    position: Position


class PurchaseDetails(View):
    """Details of a purchase."""

    gateway: str = Field(description="The payment gateway.", examples=["razorpay"])
    payment_id: str = Field(description="The gateway's id of the payment.", examples=["pay_29QQoUBi66xm2f"])
    order_id: str = Field(description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"])
    unit_price_millionths: int = Field(
        description="Price of one credit, in millionths of the currency unit.", examples=[20_000]
    )
    amount_minor: int = Field(description="Amount excluding tax, in minor units.", examples=[2_000])
    tax_minor: int = Field(description="Tax on top of the amount, in minor units.", examples=[0])
    currency: Currency = Field(description="The currency of the payment.", examples=["USD"])


class GrantDetails(View):
    """Details of a grant."""

    kind: GrantKind = Field(description="The kind of grant.", examples=["admin"])
    reason: str = Field(description="The reason as text.", examples=["goodwill after an outage"])


class RefundDetails(View):
    """Details of the refund of a charge."""

    charge: int = Field(description="Version of the refunded charge.", examples=[16])
    run_id: str = Field(description="The run that was charged.", examples=["run-88"])
    reason: str = Field(description="The reason as text.", examples=["processed twice"])


class PurchaseRefundDetails(View):
    """Details of a purchase refund."""

    purchase: int = Field(description="Version of the purchase.", examples=[3])
    payment_id: str = Field(description="The ledger's id of the payment.", examples=["payment-0198f0c2"])
    refund_id: str = Field(description="The ledger's id of the refund.", examples=["refund-0198f0c2"])
    amount_minor: int | None = Field(
        description="The refunded amount excluding tax, in minor units; null: the gateway refused the refund,"
        " and the credits were returned.",
        examples=[2_000],
    )
    tax_minor: int | None = Field(description="The refunded tax, in minor units.", examples=[0])
    currency: Currency | None = Field(description="The currency of the payment.", examples=["USD"])


class Transaction(View):
    """A run, or an addition of credits."""

    kind: TransactionKind = Field(description="Usage or addition.", examples=["usage"])
    reference: str = Field(
        description="For usage: the run id. For an addition: the version of its event.", examples=["run-88"]
    )
    type: TransactionType = Field(description="The type of the transaction.", examples=["usage"])
    credits: int = Field(description="Credits, signed: usage is negative.", examples=[-500])
    occurred_at: Instant = Field(description="When it happened; for a run, the time of its earliest charge.")
    recorded_at: Instant = Field(description="When the ledger first recorded it.")
    actor: str | None = Field(description="Who caused it; null means the System.", examples=["u-17"])
    actor_name: ShownName
    month: Month | None = Field(description="For usage: the month in which the run counts.")
    photos: int | None = Field(description="For usage: photos processed.", examples=[500])
    usage_types: Sequence[UsageType] = Field(
        description="For usage: the usage types, usually one.", examples=[["photo_processing"]]
    )
    event_ids: Sequence[int] = Field(description="Ids of its photo events, usually one.", examples=[[1042]])
    event_name: str | None = Field(
        description="Name of the first photo event.", examples=["City Marathon 2026"]
    )
    first_version: int = Field(description="Version of its first event.", examples=[16])
    last_version: int = Field(description="Version of its last event.", examples=[16])
    details: PurchaseDetails | GrantDetails | RefundDetails | PurchaseRefundDetails | None = Field(
        description="For an addition: the details of its type."
    )


class TransactionPage(View):
    """Transactions, newest first."""

    transactions: Sequence[Transaction] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position

    @classmethod
    def of(cls, page: read_models.TransactionPage, names: ActorNames) -> TransactionPage:
        """Return a page that includes the names of its actors."""
        rows = [_with_actor_name(Transaction, each, names) for each in page.transactions]
        return cls(transactions=rows, next_cursor=page.next_cursor, position=page.position)


class Charge(View):
    """One charge of a run. A refund identifies it by its version."""

    version: int = Field(description="Version of the event in the organisation's history.", examples=[16])
    occurred_at: Instant = Field(description="When the photos were processed.")
    recorded_at: Instant = Field(description="When the ledger recorded it.")
    day: Day = Field(description="The day of `occurred_at` in the organisation's time zone at that time.")
    usage_type: UsageType = Field(description="The usage type.", examples=["photo_processing"])
    photos: Photos
    rate_millionths: int = Field(
        description="Credits per photo, in millionths of a credit.", examples=[1_000_000]
    )
    credits: ChargedCredits
    event_id: int | None = Field(description="Id of the photo event; null without one.", examples=[1042])
    event_name: str | None = Field(
        description="Name of the photo event; null without one.", examples=["City Marathon 2026"]
    )
    actor: str | None = Field(description="Who started the run; null means the System.", examples=["u-17"])
    actor_name: ShownName
    hold_id: str | None = Field(description="The hold that the usage message named.", examples=[None])
    settled: int = Field(
        description="Photos that a settlement had already charged; they cost nothing here.",
        examples=[0],
    )
    from_hold: int = Field(description="Credits drawn from the hold.", examples=[0])
    beyond_hold: int = Field(
        description="Credits that the hold did not cover: the run used more, or the hold was closed.",
        examples=[0],
    )


class ChargePage(View):
    """Charges of a run in ledger order. A page may be short or empty and still have a next page."""

    charges: Sequence[Charge] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position

    @classmethod
    def of(cls, page: read_models.ChargePage, names: ActorNames) -> ChargePage:
        """Return a page that includes the names of its actors."""
        rows = [_with_actor_name(Charge, each, names) for each in page.charges]
        return cls(charges=rows, next_cursor=page.next_cursor, position=page.position)


class EventUsage(View):
    """Usage of a photo event."""

    event_id: EventId
    event_name: EventName
    credits: ChargedCredits
    photos: Photos
    runs: int = Field(description="Distinct runs.", examples=[3])
    first_occurred_at: Instant = Field(description="The time of its earliest charge.")
    last_occurred_at: Instant = Field(description="The time of its latest charge.")


class EventUsagePage(View):
    """Photo events, most credits first."""

    month: Month | None = Field(description="The requested month; null means all time.")
    events: Sequence[EventUsage] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position


def _with_actor_name(
    view: type[ViewT], row: read_models.Transaction | read_models.Charge, names: ActorNames
) -> ViewT:
    fields = {**msgspec.structs.asdict(row), "actor_name": names.of(row.actor)}
    return view.model_validate(fields, from_attributes=True)


def decimal_price(price_millionths: int) -> str:
    """Return millionths as a decimal with at least two places: 20,000 is "0.02", 15,500 is "0.0155"."""
    price = Decimal(price_millionths) / MILLIONTHS
    places = max(2, -int(price.normalize().as_tuple().exponent))
    return f"{price:.{places}f}"
