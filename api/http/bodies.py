"""The base of request bodies."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """What every body has in common."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
