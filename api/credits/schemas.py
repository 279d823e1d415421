"""What reads answer. Credits are whole; `position` is the log position an answer is true at."""

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
    """An organisation's credits and terms, from a view or from the history."""

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
    """What an organisation has, and the terms it is on."""

    organisation_id: str = Field(description="The organisation.", examples=["org-4711"])
    available: int = Field(description="Credits a new run may use: balance - on hold.", examples=[700])
    balance: int = Field(description="Credits; below zero when usage went past them.", examples=[700])
    on_hold: int = Field(description="Credits reserved for runs under way.", examples=[0])
    processing: Literal["allowed", "paused"] = Field(
        description="Paused while nothing is available.", examples=["allowed"]
    )
    plan: Plan = Field(description="What it pays by.", examples=["pay_as_you_go"])
    currency: Currency = Field(description="What it pays in.", examples=["USD"])
    cost_per_credit: str = Field(
        description="The price of one credit, a decimal number of currency units.", examples=["0.02"]
    )
    price_millionths: int = Field(
        description="The same price in millionths of the currency unit.", examples=[20_000]
    )
    time_zone: str = Field(description="Days and months are counted in it.", examples=["Asia/Kolkata"])
    as_of: Instant | None = Field(
        description="The moment that was asked for; null for the present.", examples=[None]
    )
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
    """What the runs that count in a month used."""

    month: Month = Field(description="The month, in the organisation's zone.")
    credits: ChargedCredits
    runs: int = Field(description="Runs that count in the month.", examples=[4])
    photos: Photos
    events: int = Field(description="Distinct photo events of these runs.", examples=[2])
    to_same_point: int = Field(
        description="Credits charged up to the day of the month that today is: compare months by this"
        " while the current one is running.",
        examples=[320],
    )
    current: bool = Field(description="Whether the month is still running.", examples=[True])


class UsageSummary(View):
    """Consecutive months, the current one first; months without usage are zero."""

    time_zone: str = Field(description="The organisation's zone.", examples=["Asia/Kolkata"])
    today: Day = Field(description="The day it is there.")
    months: Sequence[MonthUsage] = Field(description="One card a month.")
    position: Position


class DayUsage(View):
    """What happened on a day, whatever month its runs count in."""

    day: Day = Field(description="The day, in the organisation's zone.")
    credits: ChargedCredits
    photos: Photos


class DailyUsage(View):
    """Every day of a range, oldest first; days without usage are zero."""

    days: Sequence[DayUsage] = Field(description="One entry a day.")
    position: Position


class PurchaseDetails(View):
    """What a purchase knows."""

    gateway: str = Field(description="Who took the payment.", examples=["razorpay"])
    payment_id: str = Field(description="The gateway's id of the payment.", examples=["pay_29QQoUBi66xm2f"])
    order_id: str = Field(description="The gateway's id of the order.", examples=["order_9A33XWu170gUtm"])
    unit_price_millionths: int = Field(
        description="Price of one credit, in millionths of the currency unit.", examples=[20_000]
    )
    amount_minor: int = Field(description="Amount without tax, in minor units.", examples=[2_000])
    tax_minor: int = Field(description="Tax on top of the amount, in minor units.", examples=[0])
    currency: Currency = Field(description="The currency paid in.", examples=["USD"])


class GrantDetails(View):
    """What a grant knows."""

    kind: GrantKind = Field(description="What sort of grant it was.", examples=["admin"])
    reason: str = Field(description="The reason in words.", examples=["goodwill after an outage"])


class RefundDetails(View):
    """What a refund knows."""

    charge: int = Field(description="Version of the refunded charge.", examples=[16])
    run_id: str = Field(description="The run that was charged.", examples=["run-88"])
    reason: str = Field(description="The reason in words.", examples=["processed twice"])


class PurchaseRefundDetails(View):
    """What a refunded purchase knows."""

    purchase: int = Field(description="Version of the purchase.", examples=[3])
    payment_id: str = Field(description="Our id of the payment.", examples=["payment-0198f0c2"])
    refund_id: str = Field(description="Our id of the refund.", examples=["refund-0198f0c2"])
    amount_minor: int | None = Field(
        description="Money that goes back, without tax, in minor units; null: the gateway refused, and the"
        " credits are here again.",
        examples=[2_000],
    )
    tax_minor: int | None = Field(description="Tax that goes back with it.", examples=[0])
    currency: Currency | None = Field(description="The currency paid in.", examples=["USD"])


class Transaction(View):
    """A run, or an addition of credits."""

    kind: TransactionKind = Field(description="Which of the two lists it is in.", examples=["usage"])
    reference: str = Field(
        description="Of usage: the run id. Of an addition: the version of its event.", examples=["run-88"]
    )
    type: TransactionType = Field(description="What it is.", examples=["usage"])
    credits: int = Field(description="Credits, signed: usage is negative.", examples=[-500])
    occurred_at: Instant = Field(description="When it happened; of a run, its earliest charge.")
    recorded_at: Instant = Field(description="When the ledger first recorded it.")
    actor: str | None = Field(description="Who caused it; null: the System.", examples=["u-17"])
    actor_name: ShownName
    month: Month | None = Field(description="Of usage: the month the run counts in.")
    photos: int | None = Field(description="Of usage: photos processed.", examples=[500])
    usage_types: Sequence[UsageType] = Field(
        description="Of usage: what was done, usually one.", examples=[["photo_processing"]]
    )
    event_ids: Sequence[int] = Field(description="Photo events it names, usually one.", examples=[[1042]])
    event_name: str | None = Field(
        description="Name of the first photo event.", examples=["City Marathon 2026"]
    )
    first_version: int = Field(description="Version of its first event.", examples=[16])
    last_version: int = Field(description="Version of its last event.", examples=[16])
    details: PurchaseDetails | GrantDetails | RefundDetails | PurchaseRefundDetails | None = Field(
        description="Of an addition: what its type knows."
    )


class TransactionPage(View):
    """Transactions, newest first."""

    transactions: Sequence[Transaction] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position

    @classmethod
    def of(cls, page: read_models.TransactionPage, names: ActorNames) -> TransactionPage:
        """Return a page with the names of its actors."""
        rows = [_with_actor_name(Transaction, each, names) for each in page.transactions]
        return cls(transactions=rows, next_cursor=page.next_cursor, position=page.position)


class Charge(View):
    """A single charge of a run. A refund names it by its version."""

    version: int = Field(description="Its number in the organisation's history.", examples=[16])
    occurred_at: Instant = Field(description="When the photos were processed.")
    recorded_at: Instant = Field(description="When the ledger recorded it.")
    day: Day = Field(description="The day of `occurred_at` in the organisation's zone at that moment.")
    usage_type: UsageType = Field(description="What was done.", examples=["photo_processing"])
    photos: Photos
    rate_millionths: int = Field(description="Millionths of a credit a photo cost.", examples=[1_000_000])
    credits: ChargedCredits
    event_id: int | None = Field(
        description="Id of the photo event; null where it belongs to none.", examples=[1042]
    )
    event_name: str | None = Field(
        description="Name of the photo event; null without one.", examples=["City Marathon 2026"]
    )
    actor: str | None = Field(description="Who triggered the run; null: the System.", examples=["u-17"])
    actor_name: ShownName
    hold_id: str | None = Field(description="The hold it was reported against.", examples=[None])
    settled: int = Field(
        description="Photos that a settlement had charged before; they cost nothing again.",
        examples=[0],
    )
    from_hold: int = Field(description="Credits that were held for the run.", examples=[0])
    beyond_hold: int = Field(
        description="Credits that the named hold did not cover: the run took more, or it was closed.",
        examples=[0],
    )


class ChargePage(View):
    """Charges of a run in ledger order. A page may be short, even empty, and still have a next one."""

    charges: Sequence[Charge] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position

    @classmethod
    def of(cls, page: read_models.ChargePage, names: ActorNames) -> ChargePage:
        """Return a page with the names of its actors."""
        rows = [_with_actor_name(Charge, each, names) for each in page.charges]
        return cls(charges=rows, next_cursor=page.next_cursor, position=page.position)


class EventUsage(View):
    """What a photo event used."""

    event_id: EventId
    event_name: EventName
    credits: ChargedCredits
    photos: Photos
    runs: int = Field(description="Distinct runs.", examples=[3])
    first_occurred_at: Instant = Field(description="Its earliest charge.")
    last_occurred_at: Instant = Field(description="Its latest charge.")


class EventUsagePage(View):
    """Photo events, the most expensive first."""

    month: Month | None = Field(description="The month asked for; null: all time.")
    events: Sequence[EventUsage] = Field(description="The page.")
    next_cursor: NextCursor
    position: Position


def _with_actor_name(
    view: type[ViewT], row: read_models.Transaction | read_models.Charge, names: ActorNames
) -> ViewT:
    fields = {**msgspec.structs.asdict(row), "actor_name": names.of(row.actor)}
    return view.model_validate(fields, from_attributes=True)


def decimal_price(price_millionths: int) -> str:
    """Return millionths as a decimal number with at least two places: 20,000 is "0.02", 15,500 "0.0155"."""
    price = Decimal(price_millionths) / MILLIONTHS
    places = max(2, -int(price.normalize().as_tuple().exponent))
    return f"{price:.{places}f}"
