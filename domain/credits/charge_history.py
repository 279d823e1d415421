"""What commands need to know of earlier events of an organisation, without replaying its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from domain.pricing.rate_card import UsageType
from domain.shared.aggregate import EventEnvelope


class ChargeHistory(Protocol):
    """Finds the refunds of a charge and the charges of a run.

    Inside `EventStore.exclusive` it reads in the same transaction.

    Raises:
        StoreUnavailable: the database cannot be reached.
    """

    def refunds_of(self, stream: UUID, charge: int) -> list[EventEnvelope]:
        """Return all refunds of a charge, or of a purchase, oldest first. `charge` is its version."""

    def photos_reported(self, stream: UUID, run_id: str, version: int) -> Mapping[UsageType, int]:
        """Return a run's billable photos of each type in a history up to a version."""
