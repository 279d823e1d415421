"""Request and response bodies of holds and quotes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from api.http.bodies import Body
from api.http.fields import EVENT_NAME_PATTERN, Identifier, Instant
from api.http.views import Position, View
from domain.credits.command_result import CommandResult
from domain.credits.hold_commands import HOLD_DURATION_DEFAULT, Quote
from domain.credits.holds import HOLD_DURATION_MAX, PHOTOS_MAX, HoldMode
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
    """The photo event of the run."""

    id: Annotated[int, Field(ge=0, le=2**53 - 1)] = Field(
        description="The number of the photo event.", examples=[1042]
    )
    name: Annotated[str, Field(max_length=256, pattern=EVENT_NAME_PATTERN)] = Field(
        description="The name of the photo event.", examples=["City Marathon 2026"]
    )


class WantedUsage(Body):
    """What a run will use: credits, or photos of a usage type at the current rate."""

    credits: HoldCredits | None = Field(
        default=None, description="Credits, instead of `usage_type` and `photos`.", examples=[None]
    )
    usage_type: LaxUsageType | None = Field(
        default=None, description="The kind of processing; needs `photos`."
    )
    photos: PhotoCount | None = Field(
        default=None, description="Photos of the run; AI image rotation accepts 1 to 100,000."
    )
    ai_search: bool = Field(default=True, description="Whether BIB or selfie search is on.", examples=[True])


class PlaceHold(WantedUsage):
    """Credits to reserve for a run before it starts."""

    run_id: Identifier = Field(
        description="The run. A run can have one hold. A repeat while the hold is open returns that hold.",
        examples=["run-88"],
    )
    mode: LaxMode = Field(
        description="`all_or_nothing` fails if fewer credits are available; `up_to` holds what is available.",
        examples=["up_to"],
    )
    expires_in_s: Annotated[int, Field(ge=1, le=_SECONDS_MAX)] = Field(
        default=int(HOLD_DURATION_DEFAULT.total_seconds()),
        description="Seconds until an unsettled hold expires.",
        examples=[3_600],
    )
    event: PhotoEventOfHold | None = Field(
        default=None,
        description="The photo event of a settlement. Default: the photo event of the run's messages.",
    )
    user: Identifier | None = Field(
        default=None, description="Who started the run. Default: the System.", examples=["u-17"]
    )


class SettleHold(Body):
    """The result of a run."""

    photos: PhotoCount = Field(description="Photos of the whole run that were processed successfully.")
    usage_type: LaxUsageType | None = Field(
        default=None, description="Required if the hold was placed for `credits`."
    )


class ReleaseHold(Body):
    """An empty object."""


class HoldRecorded(BaseModel):
    """A hold after a write, with the organisation's credits."""

    hold_id: str = Field(
        description="The hold. Usage messages carry it as `data.hold_id`.", examples=["hold-8"]
    )
    run_id: str = Field(description="The run.", examples=["run-88"])
    status: HoldStatus = Field(description="The status of the hold.", examples=["open"])
    credits: int = Field(description="Credits that were held.", examples=[500])
    remaining: int = Field(description="Credits still held.", examples=[500])
    released: int = Field(description="Credits that this write released.", examples=[0])
    charged: int = Field(
        description="Credits that a settlement charged for photos that no message had reported.",
        examples=[0],
    )
    expires_at: Instant = Field(description="When the hold expires, if it is still open then.")
    available: int = Field(description="Credits available after the write.", examples=[200])
    balance: int = Field(description="Credits after the write, including held credits.", examples=[700])
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
    run_id: str = Field(description="The run.", examples=["run-88"])
    status: HoldStatus = Field(description="The status of the hold.", examples=["open"])
    mode: HoldMode = Field(description="The mode of the request.", examples=["up_to"])
    requested: int = Field(description="Credits that were requested.", examples=[500])
    credits: int = Field(description="Credits that were held.", examples=[500])
    used: int = Field(description="Held credits that were charged.", examples=[320])
    remaining: int = Field(description="Credits still held.", examples=[180])
    placed_at: Instant = Field(description="When the hold was placed.")
    expires_at: Instant = Field(description="When the hold expires, if it is still open then.")
    closed_at: Instant | None = Field(description="When the hold was closed; null while it is open.")
    version: int = Field(description="Version of the event that placed the hold.", examples=[8])


class HoldList(View):
    """Holds, newest first."""

    holds: list[Hold] = Field(description="The holds.")
    position: Position


class OneHold(View):
    """One hold."""

    hold: Hold = Field(description="The hold.")
    position: Position


class QuotedDraw(View):
    """Credits that the run would draw from one lot."""

    lot: int = Field(description="The version of the event that opened the lot.", examples=[2])
    kind: str = Field(description="`free` or `paid`.", examples=["free"])
    credits: int = Field(description="Credits drawn from the lot.", examples=[200])


class QuotedCost(BaseModel):
    """What a run would cost now. A quote records and reserves nothing."""

    credits: int = Field(description="Credits of the run.", examples=[500])
    draws: list[QuotedDraw] = Field(description="Draws on lots, in the order of spending.")
    overdraft: int = Field(description="Credits that no lot covers.", examples=[0])
    available: int = Field(description="Credits available now.", examples=[700])
    available_after: int = Field(description="Credits available after the run.", examples=[200])
    sufficient: bool = Field(
        description="Whether a hold for all these credits would succeed.", examples=[True]
    )
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
