"""The base of answers, and fields that many of them have."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Position = Annotated[int, Field(description="Log position the answer is true at.", examples=[1042])]


NextCursor = Annotated[
    str | None, Field(description="The `cursor` of the next page; null on the last.", examples=[None])
]


class View(BaseModel):
    """An answer, made from what a projection returns."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


ViewT = TypeVar("ViewT", bound=View)
