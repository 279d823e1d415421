"""The base of response bodies, and their common fields."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Position = Annotated[int, Field(description="Log position of this response.", examples=[1042])]


NextCursor = Annotated[
    str | None, Field(description="The `cursor` of the next page; null on the last page.", examples=[None])
]


class View(BaseModel):
    """A response body, created from the result of a query."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


ViewT = TypeVar("ViewT", bound=View)
