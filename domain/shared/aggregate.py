"""What all aggregates share: events at their places in a history, and decisions that become events.

One log holds the histories of all of them. An aggregate is a stream of its own; events of several may be
appended together, and are then in the log together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID

import msgspec

from domain.shared.errors import InvariantViolation


class DomainEvent(Protocol):
    """What happened. Every fact says when it was recorded, by whom, and because of what."""

    @property
    def recorded_at(self) -> datetime: ...

    @property
    def actor(self) -> str | None: ...

    @property
    def cause(self) -> str: ...

    @property
    def balance_delta(self) -> int:
        """Credits that the fact added to its organisation's balance; negative for a charge."""

    def apply(self, aggregate: Any) -> None:
        """Change the aggregate, which already stands at the fact's version."""


class EventEnvelope(msgspec.Struct, frozen=True, gc=False):
    """A fact at its place in an aggregate's history. `originator_version` counts from 1."""

    originator_id: UUID
    originator_version: int
    event: DomainEvent

    def mutate(self, aggregate: A) -> A:
        """Apply the fact to the aggregate, which stands just before it.

        Raises:
            InvariantViolation: it does not.
        """
        if aggregate.id != self.originator_id or aggregate.version + 1 != self.originator_version:
            raise InvariantViolation(
                f"event {self.originator_version} of {self.originator_id} does not follow "
                f"version {aggregate.version} of {aggregate.id}"
            )
        aggregate.version = self.originator_version
        aggregate.last_recorded_at = self.event.recorded_at
        self.event.apply(aggregate)
        return aggregate


class Aggregate:
    """A history's present state. Its recorded times never go back, whatever the writers' clocks say."""

    __slots__ = ("_pending", "id", "last_recorded_at", "version")

    def __init__(self, stream: UUID) -> None:
        self.id = stream
        self.version = 0
        self.last_recorded_at = datetime.min.replace(tzinfo=UTC)
        self._pending: list[EventEnvelope] = []

    def collect_events(self) -> Sequence[EventEnvelope]:
        """Hand over the events decided since the last call."""
        pending, self._pending = self._pending, []
        return pending

    def check_invariants(self) -> None:
        """Check the state.

        Raises:
            InvariantViolation: it contradicts itself.
        """

    def _record(self, event: DomainEvent) -> EventEnvelope:
        """Apply a fact at once, through the same `apply` that replay uses, and keep it to be collected.

        A time before the one of the event it follows becomes that one.
        """
        if event.recorded_at < self.last_recorded_at:
            struct = msgspec.structs.replace(cast("msgspec.Struct", event), recorded_at=self.last_recorded_at)
            event = cast("DomainEvent", struct)
        envelope = EventEnvelope(self.id, self.version + 1, event)
        envelope.mutate(self)
        self._pending.append(envelope)
        return envelope


A = TypeVar("A", bound=Aggregate)
