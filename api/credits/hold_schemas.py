"""Bodies and answers of holds and quotes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from api.http.bodies import Body
from api.http.fields import EVENT_NAME_PATTERN, Identifier, Instant
from api.http.views import Position, View
from domain.credits.holds import HOLD_DURATION_MAX, PHOTOS_MAX, HoldMode
from domain.credits.ledger import HOLD_DURATION_DEFAULT, CommandResult, Quote
from domain.credits.limits import CREDITS_MAX
from domain.pricing.rate_card import UsageType
from domain.shared.command_runner import RecordedResult
from projections.credits.holds import HoldStatus

_SECONDS_MAX = int(HOLD_DURATION_MAX.total_seconds())

HoldCredits = Annotated[int, Field(ge=0, le=CREDITS_MAX)]
PhotoCount = Annotated[int, Field(ge=0, le=PHOTOS_MAX, examples=[500])]
LaxUsageType = Annotated[UsageType, Field(strict=False, examples=["photo_processing"])]
LaxMode = Annotated[HoldMode, Field(strict=False)]


class PhotoEventOfHold(Body):
    """The photo event that the run belongs to."""

    id: Annotated[int, Field(ge=0, le=2**53 - 1)] = Field(
        description="The number people see.", examples=[1042]
    )
    name: Annotated[str, Field(max_length=256, pattern=EVENT_NAME_PATTERN)] = Field(
        description="Its name.", examples=["City Marathon 2026"]
    )


class WantedUsage(Body):
    """What a run will use: credits, or photos of a usage type at the rate of this moment."""

    credits: HoldCredits | None = Field(
        default=None, description="Credits, in place of `usage_type` and `photos`.", examples=[None]
    )
    usage_type: LaxUsageType | None = Field(
        default=None, description="What will be done to the photos; needs `photos`."
    )
    photos: PhotoCount | None = Field(
        default=None, description="Photos of the run; AI image rotation takes 1 to 100,000."
    )
    ai_search: bool = Field(default=True, description="BIB or selfie search on.", examples=[True])


class PlaceHold(WantedUsage):
    """Credits to set aside for a run before it starts."""

    run_id: Identifier = Field(
        description="The run. It has one hold in its life; asking again while it is open returns it.",
        examples=["run-88"],
    )
    mode: LaxMode = Field(
        description="`all_or_nothing` refuses where less is available; `up_to` takes what there is.",
        examples=["up_to"],
    )
    expires_in_s: Annotated[int, Field(ge=1, le=_SECONDS_MAX)] = Field(
        default=int(HOLD_DURATION_DEFAULT.total_seconds()),
        description="When an unsettled hold lapses.",
        examples=[3_600],
    )
    event: PhotoEventOfHold | None = Field(
        default=None,
        description="What a settlement is shown under; without it, the event that the run's messages name.",
    )
    user: Identifier | None = Field(
        default=None, description="Who triggered the run; the System without it.", examples=["u-17"]
    )


class SettleHold(Body):
    """How a run ended."""

    photos: PhotoCount = Field(description="Photos of the run that succeeded, in all its messages.")
    usage_type: LaxUsageType | None = Field(
        default=None, description="Needed where the hold was placed for credits alone."
    )


class ReleaseHold(Body):
    """Nothing is to be said."""


class HoldRecorded(BaseModel):
    """A hold after a write, and what the organisation stands at."""

    hold_id: str = Field(
        description="The hold: usage messages name it as `data.hold_id`.", examples=["hold-8"]
    )
    run_id: str = Field(description="Its run.", examples=["run-88"])
    status: HoldStatus = Field(description="What has become of it.", examples=["open"])
    credits: int = Field(description="Credits that were held.", examples=[500])
    remaining: int = Field(description="Credits still held.", examples=[500])
    released: int = Field(description="Credits that this write freed.", examples=[0])
    charged: int = Field(
        description="Credits that a settlement charged for photos no message had reported.", examples=[0]
    )
    expires_at: Instant = Field(description="When it lapses, or would have.")
    available: int = Field(description="Credits available after the write.", examples=[200])
    balance: int = Field(description="Credits after the write, held ones included.", examples=[700])
    position: Position

    @classmethod
    def of(cls, result: RecordedResult[CommandResult]) -> HoldRecorded:
        recorded = result.value
        hold = recorded.hold
        assert hold is not None
        return cls(
            hold_id=hold.hold_id,
            run_id=hold.run_id,
            status=HoldStatus(hold.status),
            credits=hold.credits,
            remaining=hold.remaining,
            released=hold.released,
            charged=hold.charged,
            expires_at=hold.expires_at,
            available=recorded.available,
            balance=recorded.balance,
            position=result.position,
        )


class Hold(View):
    """A hold, open or closed."""

    hold_id: str = Field(description="The hold.", examples=["hold-8"])
    run_id: str = Field(description="Its run.", examples=["run-88"])
    status: HoldStatus = Field(description="What has become of it.", examples=["open"])
    mode: HoldMode = Field(description="How it was asked for.", examples=["up_to"])
    requested: int = Field(description="Credits asked for.", examples=[500])
    credits: int = Field(description="Credits that were held.", examples=[500])
    used: int = Field(description="Credits of it that were charged.", examples=[320])
    remaining: int = Field(description="Credits still held.", examples=[180])
    placed_at: Instant = Field(description="When it was placed.")
    expires_at: Instant = Field(description="When it lapses, or would have.")
    closed_at: Instant | None = Field(description="When it was closed; null while it is open.")
    version: int = Field(description="Number of the event that placed it.", examples=[8])


class HoldList(View):
    """Holds, the newest first."""

    holds: list[Hold] = Field(description="The holds.")
    position: Position


class OneHold(View):
    """One hold."""

    hold: Hold = Field(description="The hold.")
    position: Position


class QuotedDraw(View):
    """Credits that would be drawn from a lot."""

    lot: int = Field(description="The version of the event that opened the lot.", examples=[2])
    kind: str = Field(description="free or paid.", examples=["free"])
    credits: int = Field(description="Credits drawn from it.", examples=[200])


class QuotedCost(BaseModel):
    """What a run would cost now. Nothing is recorded or set aside."""

    credits: int = Field(description="Credits of the run.", examples=[500])
    draws: list[QuotedDraw] = Field(description="The lots it would draw on, in spend order.")
    overdraft: int = Field(description="Credits that no lot covers.", examples=[0])
    available: int = Field(description="Credits available now.", examples=[700])
    available_after: int = Field(description="Credits available after the run.", examples=[200])
    sufficient: bool = Field(description="Whether a hold of all of it would be granted.", examples=[True])
    position: Position

    @classmethod
    def of(cls, quote: Quote, position: int) -> QuotedCost:
        return cls(
            credits=quote.credits,
            draws=[QuotedDraw.model_validate(draw) for draw in quote.draws],
            overdraft=quote.overdraft,
            available=quote.available,
            available_after=quote.available_after,
            sufficient=quote.credits <= max(quote.available, 0),
            position=position,
        )
