"""What the pipeline reports: photos of a run that were processed.

The structs have the shape of the message on the wire, nested as it is and with its limits, so that what the
decoder makes is what the organisation is charged with: nothing is copied between. Where a field has another
name on the wire, it says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from domain.pricing.rate_card import UsageType

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
ChargeFingerprint = tuple[str, UsageType, int, bool, int]
"""Run id, usage type, photos, AI search, event id."""


class PhotoEvent(msgspec.Struct, frozen=True, gc=False):
    """The photographed event that the run belongs to; `id` is the number people see."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    name: Annotated[str, msgspec.Meta(max_length=256)]


class User(msgspec.Struct, frozen=True, gc=False):
    """Who triggered the run, as an opaque id."""

    id: Identifier


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What one message reports of a run. `photos` were processed in this message alone.

    `ai_search` tells whether BIB or selfie search was on. `user` None means the System triggered the run.
    """

    run_id: Identifier
    usage_type: UsageType
    photos: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    ai_search: bool
    photo_event: PhotoEvent = msgspec.field(name="event")
    user: User | None = None
    hold_id: Identifier | None = None


class UsageReport(msgspec.Struct, frozen=True, gc=False):
    """One usage message, a CloudEvent. (`source`, `message_id`) identifies it permanently."""

    specversion: Literal["1.0"]
    message_id: Identifier = msgspec.field(name="id")
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    type: Literal["photo_processing.usage_reported.v1"]
    organisation_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = msgspec.field(name="subject")
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)] = msgspec.field(name="time")
    usage: Usage = msgspec.field(name="data")

    @classmethod
    def of(
        cls, source: str, message_id: str, organisation_id: str, occurred_at: datetime, usage: Usage
    ) -> UsageReport:
        """Return the report of some usage, in its envelope."""
        return cls(
            "1.0",
            message_id,
            source,
            "photo_processing.usage_reported.v1",
            organisation_id,
            occurred_at,
            usage,
        )

    @property
    def charge_fingerprint(self) -> ChargeFingerprint:
        """The fields that affect the charge: two messages of one identity must agree in them."""
        usage = self.usage
        return (usage.run_id, usage.usage_type, usage.photos, usage.ai_search, usage.photo_event.id)
